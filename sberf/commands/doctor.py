"""``sberf doctor``: can this machine record?  Is this recording sound?"""

from __future__ import annotations

import argparse

from sberf.commands._options import add_json

HELP = "what this kernel and this user can do, or whether a recording is sound"

_DESCRIPTION = """\
Tells whether recording works here: what the kernel and this user can do, and for each thing that is
missing what that costs and how to get it. With --recording, checks a recording instead."""
_EPILOG = """\
exit status: 0 when recording works (or the recording is sound), 1 when not

examples:
  sudo sberf doctor              everything, as root sees it
  sberf doctor --json            for scripts
  sberf doctor --recording DIR   check a recording's invariants, and show what its capture warned of"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--recording", metavar="DIR", help="check the invariants of the recording in DIR, not this machine"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Examine, print, and return 0 when all is well."""
    return _recording(args) if args.recording is not None else _machine(args)


def _machine(args: argparse.Namespace) -> int:
    from sberf.analysis.doctor import diagnose
    from sberf.capture.preflight import read_facts
    from sberf.views.doctor import doctor_json, doctor_lines
    from sberf.views.text import terminal_width, use_colour

    diagnosis = diagnose(read_facts())
    if args.json:
        print(doctor_json(diagnosis))
    else:
        print("\n".join(doctor_lines(diagnosis, terminal_width(), use_colour())))
    return 0 if diagnosis.works else 1


def _recording(args: argparse.Namespace) -> int:
    from sberf.recording.check import check
    from sberf.recording.recording import open_recording
    from sberf.views.doctor import recording_json, recording_lines

    with open_recording(args.recording) as recording:
        problems = check(recording)
        warnings = [str(warning) for warning in recording.meta.get("warnings") or ()]
    if args.json:
        print(recording_json(args.recording, problems, warnings))
    else:
        print("\n".join(recording_lines(args.recording, problems, warnings)))
    return 1 if problems else 0
