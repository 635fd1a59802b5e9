"""``sberf recover``: finish a capture that was killed."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from sberf.errors import RecordingError, UsageError

HELP = "finish a capture that was killed"

_EPILOG = """\
examples:
  sberf recover                          the only *.spool-* directory here
  sberf recover sberf.data.spool-4711    into sberf.data
  sberf recover sberf.data.spool-4711 -o rescued.data"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``sberf recover``."""
    parser.description = "Make a recording of the samples that a killed `sberf record` had spooled."
    parser.epilog = _EPILOG
    parser.add_argument("spool", nargs="?", type=Path, help="the NAME.spool-PID directory that it left")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="the recording (default: NAME)")


def run(args: argparse.Namespace) -> int:
    """Write the recording and remove the spool."""
    from sberf.capture.recover import recover

    spool = args.spool or _only_spool()
    output = args.output or _recording_of(spool)
    for line in recover(spool, output):
        print(f"sberf: {line}", file=sys.stderr)
    return 0


def _only_spool() -> Path:
    spools = sorted(path for path in Path().glob("*.spool-*") if path.is_dir())
    if len(spools) == 1:
        return spools[0]
    if not spools:
        raise RecordingError(
            "there is no spool here", "a killed capture leaves NAME.spool-PID beside its -o DIR"
        )
    raise UsageError(f"there are {len(spools)} spools here", f"name one of {', '.join(map(str, spools))}")


def _recording_of(spool: Path) -> Path:
    name, count = re.subn(r"\.spool-\d+$", "", spool.name)
    if not count:
        raise UsageError(f"'{spool}' is not named NAME.spool-PID", "give the recording's name with -o DIR")
    return spool.with_name(name)
