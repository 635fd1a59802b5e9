"""The options that all commands share which read a recording."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from sberf.errors import UsageError
from sberf.units import parse_duration_ns

if TYPE_CHECKING:
    from sberf.analysis.filters import Filters
    from sberf.recording.recording import Recording

DEFAULT_INPUT = "sberf.data"
_MAX_SPAN = 65536


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add ``-i/--input DIR``."""
    parser.add_argument(
        "-i", "--input", metavar="DIR", default=DEFAULT_INPUT, help="the recording (default: sberf.data)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the filters; read them with :func:`filters_from`."""
    group = parser.add_argument_group(
        "filters",
        "All must hold. Lists are separated by commas, and an option can be repeated. Names may be globs "
        "such as 'lib*'.",
    )

    def add(
        option: str, metavar: str, parse: Callable[[str], list[int]] | Callable[[str], list[str]], help: str
    ) -> None:
        group.add_argument(option, metavar=metavar, type=parse, action="extend", default=[], help=help)

    add("--pid", "PID,...", _numbers, "process IDs")
    add("--tid", "TID,...", _numbers, "thread IDs")
    add("--comm", "NAME,...", _names, "names of processes or threads")
    add("--container", "NAME,...", _names, "names or IDs of containers; '[host]' is what is in none")
    add("--dso", "NAME,...", _names, "modules (base name or path) anywhere in the stack")
    add("--symbol", "NAME,...", _names, "functions anywhere in the stack")
    add("--cpu", "CPU,...", _numbers, "CPU numbers, with ranges: 0-3,7")
    add("--event", "NAME,...", _names, "events, of a recording that holds several")
    group.add_argument(
        "--no-inlines",
        action="store_true",
        help="count inlined calls as part of the function that they lie in",
    )
    group.add_argument(
        "--no-demangle", action="store_true", help="show the names of C++ and Rust as the linker knows them"
    )
    group.add_argument(
        "--time",
        metavar="START,STOP",
        type=_time_window,
        default=(None, None),
        help="seconds (or with a unit: 1.5,200ms) since the recording's start; either may be left out",
    )


def filters_from(args: argparse.Namespace, recording: Recording) -> Filters:
    """The filters that the options of :func:`add_filters` ask for.

    Args:
        args: The parsed arguments.
        recording: The recording, whose start ``--time`` counts from.
    """
    from sberf.analysis.filters import Filters

    start_ns, stop_ns = args.time
    return Filters(
        pids=tuple(args.pid),
        tids=tuple(args.tid),
        comms=tuple(args.comm),
        containers=tuple(args.container),
        dsos=tuple(args.dso),
        symbols=tuple(args.symbol),
        cpus=tuple(args.cpu),
        events=tuple(args.event),
        start_ns=None if start_ns is None else recording.start_ns + start_ns,
        stop_ns=None if stop_ns is None else recording.start_ns + stop_ns,
        inlines=not args.no_inlines,
        demangle=not args.no_demangle,
    )


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if not names:
        raise argparse.ArgumentTypeError("a name is missing")
    return names


def _numbers(text: str) -> list[int]:
    """``"1,4-6"`` -> ``[1, 4, 5, 6]``."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"'{part}' is no number")
        span = range(int(first), int(last or first) + 1)
        if not 0 < len(span) <= _MAX_SPAN:
            raise argparse.ArgumentTypeError(f"'{part}' is no range of at most {_MAX_SPAN} numbers")
        numbers.extend(span)
    return numbers


def _time_window(text: str) -> tuple[int | None, int | None]:
    start, comma, stop = text.partition(",")
    try:
        start_ns = parse_duration_ns(start) if start.strip() else None
        stop_ns = parse_duration_ns(stop) if stop.strip() else None
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error.message}: {error.hint}") from None
    if not comma or (start_ns is None and stop_ns is None):
        raise argparse.ArgumentTypeError(f"'{text}' is no window: write START,STOP, such as 1.5,3 or 2,")
    if start_ns is not None and stop_ns is not None and start_ns >= stop_ns:
        raise argparse.ArgumentTypeError(f"'{text}' is an empty window: START must be before STOP")
    return start_ns, stop_ns


def percentage(text: str) -> float:
    """The value of an option such as ``0.5`` or ``0.5%``; for ``type=``."""
    try:
        percent = float(text.rstrip("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is no percentage from 0 to 100")
    return percent


def positive_count(text: str) -> int:
    """The value of an option that is a whole number above 0; for ``type=``."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number above 0")
    return int(text)
