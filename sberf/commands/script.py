"""``sberf script``: single samples or folded stacks as text for other tools."""

from __future__ import annotations

import argparse
import sys

from sberf.commands._options import add_filters, add_input, filters_from

HELP = "print samples in perf script's layout, or folded stacks"
_EPILOG = """\
examples:
  sberf script | stackcollapse-perf.pl | flamegraph.pl > flame.svg
  sberf script > profile.perf               open it in https://www.speedscope.app
  sberf script --folded --comm postgres | flamegraph.pl > flame.svg"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.description = (
        "Print every sample with its stack in the text layout of perf script, or one line for each distinct "
        "stack with its weight."
    )
    parser.epilog = _EPILOG
    add_input(parser)
    parser.add_argument("--folded", action="store_true", help="print folded stacks: comm;main;work 42000")
    parser.add_argument(
        "--samples",
        action="store_true",
        help="with --folded: count samples instead of their weight (ns for clocks)",
    )
    add_filters(parser)


def run(args: argparse.Namespace) -> int:
    """Print the text; 0 even when nothing matches, which is said on stderr."""
    from sberf.analysis.emptiness import why_empty
    from sberf.errors import UsageError
    from sberf.recording.recording import open_recording
    from sberf.views.text import printable, show

    if args.samples and not args.folded:
        raise UsageError("--samples needs --folded", "without --folded every sample is printed")
    with open_recording(args.input) as recording:
        filters = filters_from(args, recording)
        if args.folded:
            from sberf.analysis.stack_counts import stack_counts
            from sberf.views.folded import folded_lines

            counts = stack_counts(recording, filters, by_comm=True)
            lines = folded_lines(counts, samples=args.samples)
        else:
            from sberf.analysis.samples import samples
            from sberf.views.perf_script import perf_script_lines

            lines = perf_script_lines(samples(recording, filters))
        if not show(lines):
            print(f"sberf: no samples: {printable(why_empty(recording, filters))}", file=sys.stderr)
    return 0
