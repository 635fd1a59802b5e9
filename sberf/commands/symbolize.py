"""``sberf symbolize``: name a recording's frames again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sberf.commands._options import DEFAULT_INPUT, add_json
from sberf.units import format_bytes, format_count

if TYPE_CHECKING:
    from sberf.recording.symbolize import Symbolized

HELP = "name a recording's functions again, with debug files that were not there before"

_EPILOG = """\
examples:
  sberf symbolize                                     after installing debug packages
  sberf symbolize web1.data --debug-dir ./symbols     on another machine
  DEBUGINFOD_URLS=https://debuginfod.debian.net sberf symbolize"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.description = (
        "Name a recording's functions again: with debug packages installed since, on another machine with "
        "directories of debug files, or from the debuginfod servers in DEBUGINFOD_URLS. What cannot be named "
        "better stays as it is."
    )
    parser.epilog = _EPILOG
    parser.add_argument(
        "recording",
        nargs="?",
        metavar="DIR",
        type=Path,
        default=Path(DEFAULT_INPUT),
        help="the recording (default: sberf.data)",
    )
    parser.add_argument(
        "--debug-dir",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="a directory with debug files or programs, in any layout; can be repeated",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the names into the recording, and say what has changed."""
    from sberf.errors import CaptureError
    from sberf.recording.debuginfod import servers
    from sberf.recording.symbolize import symbolize

    live = sys.stderr.isatty()
    try:
        result = symbolize(args.recording, args.debug_dir, servers(), _show_progress if live else None)
    except OSError as error:
        raise CaptureError(f"cannot keep a fetched debug file: {error}") from None
    finally:
        if live:
            sys.stderr.write("\r\x1b[K")
    if args.json:
        from sberf.views.json import to_json

        print(to_json(result))
        return 0
    for line in _lines(args.recording, result):
        print(line)
    return 0


def _show_progress(module: str, done: int, size: int | None) -> None:
    from sberf.views.text import base_name, printable

    of_all = f" of {format_bytes(size)}" if size else ""
    sys.stderr.write(f"\r\x1b[Kfetching {printable(base_name(module))}: {format_bytes(done)}{of_all}")
    sys.stderr.flush()


def _lines(path: Path, result: Symbolized) -> list[str]:
    from sberf.views.text import base_name, printable

    after, before = result.after, result.before
    lines = [
        f"{printable(str(path))}: {format_count(after.frames)} addresses",
        f"  function names  {_change(before.named, after.named)}",
        f"  source lines    {_change(before.with_line, after.with_line)}",
        f"  inlined calls   {_change(before.inlined_calls, after.inlined_calls)}",
    ]
    for title, modules in (("fetched", result.fetched), ("no server has", result.not_fetched)):
        if modules:
            lines.append(f"  {title}: {', '.join(printable(base_name(module)) for module in modules)}")
    lines += [f"  {url} was given up: {printable(why)}" for url, why in result.failures.items()]
    return lines


def _change(before: int, after: int) -> str:
    return (
        format_count(after) if before == after else f"{format_count(after)} (before: {format_count(before)})"
    )
