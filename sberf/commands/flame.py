"""``sberf flame``: a flame graph of a recording, or of what changed between two."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sberf.commands._options import DEFAULT_INPUT, add_filters, add_input, add_json, filters_from
from sberf.errors import QueryError, UsageError
from sberf.units import format_bytes, format_count

if TYPE_CHECKING:
    from sberf.analysis.filters import Filters
    from sberf.analysis.flame import FlameDiff, FlameGraph
    from sberf.analysis.stack_counts import StackCounts
    from sberf.recording.recording import Recording
    from sberf.views.flame_about import About

HELP = "draw a flame graph into flame.html"

_EPILOG = """\
examples:
  sberf flame                                 flame.html, from sberf.data
  sberf flame --comm nginx --inverted         which functions nginx ran in, and who called them
  sberf flame --svg -o cpu.svg                a picture for a document
  sberf flame --diff before.data after.data   what grew (red) and what shrank (blue)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Draw the stacks of a recording as a flame graph, one HTML file that needs nothing else."
    )
    parser.epilog = _EPILOG
    add_input(parser)
    parser.add_argument(
        "--diff", nargs=2, metavar=("BEFORE", "AFTER"), help="draw what changed from one recording to another"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="the file, - is stdout (default: flame.html or flame.svg)",
    )
    parser.add_argument("--svg", action="store_true", help="a static SVG for documents instead of HTML")
    add_json(parser)
    parser.add_argument(
        "--inverted", action="store_true", help="begin at the functions that ran and go up to their callers"
    )
    parser.add_argument(
        "--by", choices=("comm", "pid", "container", "none"), default="comm",
        help="keep apart threads by name, processes, containers, or nothing (default: comm)",
    )  # fmt: skip
    parser.add_argument("--title", metavar="TEXT", help="the title instead of what was recorded")
    parser.add_argument(
        "--min-percent", metavar="PERCENT", type=_percent, default=0.0,
        help="merge a frame's callees that are under so many percent of all",
    )  # fmt: skip
    add_filters(parser)


def run(args: argparse.Namespace) -> int:
    """Draw, write, and say where."""
    if args.svg and args.json:
        raise UsageError("--svg and --json exclude each other")
    if args.diff and args.input != DEFAULT_INPUT:
        raise UsageError("--diff names its two recordings itself", "leave out -i/--input")
    kind = "json" if args.json else "svg" if args.svg or _is_svg(args.output) else "html"
    graph, about = _diff(args, kind) if args.diff else _graph(args, kind)
    text = _drawn(graph, about, args, kind)
    output = args.output or (Path("-") if kind == "json" else Path(f"flame.{kind}"))
    if str(output) == "-":
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    else:
        from sberf.views.output_file import write_file

        write_file(output, text)
        print(_written(output, len(text), graph), file=sys.stderr)
    return 0


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 to 100")
    return percent


def _is_svg(output: Path | None) -> bool:
    return output is not None and output.suffix == ".svg"


def _graph(args: argparse.Namespace, kind: str) -> tuple[FlameGraph, About]:
    from sberf.analysis.flame import flame_graph, fold_graph
    from sberf.analysis.overview import overview
    from sberf.recording.recording import open_recording
    from sberf.views.flame_about import about_graph

    with open_recording(args.input) as recording:
        filters = filters_from(args, recording)
        graph = flame_graph(recording, filters, by=args.by, inverted=args.inverted and kind != "html")
        _require_samples(graph.counts, recording, filters)
        if args.min_percent:
            graph = fold_graph(graph, args.min_percent / 100)
        return graph, about_graph(graph, overview(recording), args.title)


def _diff(args: argparse.Namespace, kind: str) -> tuple[FlameDiff, About]:
    from sberf.analysis.flame import flame_diff, fold_diff
    from sberf.analysis.overview import overview
    from sberf.recording.recording import open_recording
    from sberf.views.flame_about import about_diff

    with open_recording(args.diff[0]) as before, open_recording(args.diff[1]) as after:
        filters = filters_from(args, before), filters_from(args, after)
        diff = flame_diff(before, after, filters, by=args.by, inverted=args.inverted and kind != "html")
        for counts, recording, kept in zip(diff.counts, (before, after), filters, strict=True):
            _require_samples(counts, recording, kept)
        if args.min_percent:
            diff = fold_diff(diff, args.min_percent / 100)
        return diff, about_diff(diff, (overview(before), overview(after)), args.title)


def _require_samples(counts: StackCounts, recording: Recording, filters: Filters) -> None:
    from sberf.analysis.emptiness import why_empty

    if counts.total_weight == 0:
        raise QueryError(f"nothing to draw from '{recording.path}': {why_empty(recording, filters)}")


def _drawn(graph: FlameGraph | FlameDiff, about: About, args: argparse.Namespace, kind: str) -> str:
    if kind == "json":
        from sberf.views.flame_json import flame_json

        return flame_json(graph)
    if kind == "svg":
        from sberf.views.flame_svg import flame_svg

        return flame_svg(graph, about)
    from sberf.views.flame_html import flame_html

    return flame_html(graph, about, show_inverted=args.inverted)


def _written(output: Path, size: int, graph: FlameGraph | FlameDiff) -> str:
    from sberf.analysis.flame import FlameDiff
    from sberf.views.text import printable

    lots = graph.counts if isinstance(graph, FlameDiff) else (graph.counts,)
    samples = " and ".join(format_count(counts.total_samples) for counts in lots)
    stacks = sum(len(counts.stacks) for counts in lots)
    return (
        f"wrote {printable(str(output))} ({format_bytes(size)}): "
        f"{samples} samples of {graph.event} in {format_count(stacks)} stacks"
    )
