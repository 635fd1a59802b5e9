"""``sberf report``: which functions the time went to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sberf.commands._options import (
    add_filters,
    add_input,
    add_json,
    filters_from,
    percentage,
    positive_count,
)

if TYPE_CHECKING:
    from sberf.analysis.call_tree import CallTree
    from sberf.analysis.filters import Filters
    from sberf.analysis.functions import FunctionTable
    from sberf.analysis.overview import EventOverview, Overview
    from sberf.analysis.stack_quality import StackQuality
    from sberf.recording.recording import Recording

    Result = FunctionTable | CallTree | StackQuality

HELP = "show the hottest functions, or the call tree"
_EPILOG = """\
examples:
  sberf report                              self and total time of each function
  sberf report --tree --min-percent 2       who called whom
  sberf report --inverted --symbol malloc   callers, in stacks with malloc
  sberf report --lines --symbol parse       which source lines of parse() and its callees
  sberf report --stack-quality              whose stacks lack callers, and why
  sberf report -s pid,sym --comm postgres --time 2,5"""

_TABLE_MIN_PERCENT = 0.1
_TREE_MIN_PERCENT = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.description = "Show where the time went: a table of functions, or a call tree."
    parser.epilog = _EPILOG
    add_input(parser)
    parser.add_argument(
        "-s",
        "--sort",
        metavar="KEY,...",
        help="what to tell apart: container, process, comm (thread name), pid, tid, cpu, dso, sym, line "
        "(default: sym,dso,process; with --tree, keys but sym and dso are levels above the functions)",
    )
    parser.add_argument("--order", choices=("self", "total"), default="self", help="order by (default: self)")
    parser.add_argument("--tree", action="store_true", help="show a call tree, callers above callees")
    parser.add_argument(
        "--inverted", action="store_true", help="show a call tree that begins with where samples were taken"
    )
    parser.add_argument("--lines", action="store_true", help="tell the source lines of a function apart")
    parser.add_argument(
        "--stack-quality",
        action="store_true",
        help="show which stacks ended before the thread's entry, by process and module",
    )
    parser.add_argument(
        "--min-percent",
        metavar="P",
        type=percentage,
        help="leave out what has less than P %% of the total (default: 0.1, with --tree 0.5)",
    )
    parser.add_argument("--limit", metavar="N", type=positive_count, help="show at most N rows of the table")
    add_filters(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report; 0 even when nothing matches, which is said on stderr."""
    from sberf.analysis.emptiness import why_empty
    from sberf.analysis.overview import overview
    from sberf.recording.recording import open_recording
    from sberf.views.text import printable, show

    with open_recording(args.input) as recording:
        filters = filters_from(args, recording)
        seen = overview(recording)
        results = list(_results(args, recording, filters, seen))
        if args.json:
            from sberf.views.json import to_json

            print(to_json({"overview": seen, _json_key(args): results}))
            return 0
        show(_lines(seen, results))
        if not any(_weight_and_samples(result)[1] for result in results):
            print(f"sberf: no samples: {printable(why_empty(recording, filters))}", file=sys.stderr)
    return 0


def _json_key(args: argparse.Namespace) -> str:
    if args.stack_quality:
        return "stack_quality"
    return "call_trees" if args.tree or args.inverted else "functions"


def _results(
    args: argparse.Namespace, recording: Recording, filters: Filters, seen: Overview
) -> Iterator[Result]:
    """One result for each event: weights of different events do not add up."""
    from dataclasses import replace

    names = filters.events or tuple(event.event for event in seen.events)
    for name in names:
        yield _result(args, recording, replace(filters, events=(name,)))


def _result(args: argparse.Namespace, recording: Recording, filters: Filters) -> Result:
    if args.stack_quality:
        from sberf.analysis.stack_quality import stack_quality

        return stack_quality(recording, filters)
    keys = args.sort.split(",") if args.sort else None
    if args.tree or args.inverted:
        from sberf.analysis.call_tree import call_tree

        by = [key for key in keys or ["process"] if key not in ("sym", "dso", "line")]
        least = _TREE_MIN_PERCENT if args.min_percent is None else args.min_percent
        return call_tree(
            recording, filters, by=by, inverted=args.inverted, lines=args.lines, min_percent=least
        )
    from sberf.analysis.functions import DEFAULT_KEYS, functions

    keys = [*(keys or DEFAULT_KEYS), *(["line"] if args.lines else [])]
    least = _TABLE_MIN_PERCENT if args.min_percent is None else args.min_percent
    return functions(recording, filters, keys, order=args.order, min_percent=least, limit=args.limit)


def _lines(seen: Overview, results: Sequence[Result]) -> Iterator[str]:
    from sberf.analysis.functions import FunctionTable
    from sberf.analysis.stack_quality import StackQuality
    from sberf.views.call_tree import call_tree_lines
    from sberf.views.functions import function_lines
    from sberf.views.header import event_lines, header_lines
    from sberf.views.stack_quality import stack_quality_lines
    from sberf.views.text import paint_percent, terminal_width, use_colour

    width, paint = terminal_width(), paint_percent if use_colour() else None
    yield from header_lines(seen, width)
    for result in results:
        if isinstance(result, StackQuality):
            yield ""
            yield from stack_quality_lines(result, width, paint)
            continue
        weight, samples = _weight_and_samples(result)
        yield from event_lines(_event(seen, result.event), weight, samples, result.ends, width)
        if samples:
            draw = function_lines if isinstance(result, FunctionTable) else call_tree_lines
            yield ""
            yield from draw(result, width, paint)  # type: ignore[arg-type]
            yield ""


def _weight_and_samples(result: Result) -> tuple[int, int]:
    from sberf.analysis.call_tree import CallTree

    whole = result.nodes[0] if isinstance(result, CallTree) else result
    return whole.total_weight, whole.total_samples


def _event(seen: Overview, name: str) -> EventOverview:
    return next(event for event in seen.events if event.event == name)
