"""The command line: dispatch, and the single place where errors become messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sberf import __version__
from sberf.errors import SberfError, UsageError

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sberf`` with ``argv`` (default: the process's) and return its exit status.

    0 is success, 1 a failure, 2 wrong usage, 130 an interrupt, 141 a reader that went away; a
    recorded command's own exit status is passed on by ``sberf record``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _never_fail_to_print()
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except SberfError as error:
        _print_error(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _print_error(_describe(error), None)
        return SberfError.exit_code


def _dispatch(arguments: list[str]) -> int:
    from sberf.commands import COMMANDS
    from sberf.commands._parser import command_parser, full_parser, load

    if not arguments:
        full_parser().print_help()
        return 0
    command, *rest = arguments
    if command == "--version":
        print(f"sberf {__version__}")
        return 0
    if command.startswith("-"):
        return _parse_overall(arguments)
    if command not in COMMANDS:
        raise _unknown_command(command)
    try:
        args = command_parser(command).parse_args(rest)
    except SystemExit as done:  # --help and the like have printed
        return _status(done)
    return int(load(command).run(args))


def _parse_overall(arguments: list[str]) -> int:
    from sberf.commands._parser import full_parser

    try:
        full_parser().parse_args(arguments)
    except SystemExit as done:
        return _status(done)
    raise UsageError("no command given", "see sberf --help")


def _status(done: SystemExit) -> int:
    return done.code if isinstance(done.code, int) else 0


def _unknown_command(command: str) -> UsageError:
    import difflib

    from sberf.commands import COMMANDS

    near = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean sberf {near[0]}?" if near else f"commands: {', '.join(COMMANDS)}"
    return UsageError(f"unknown command '{command}'", hint)


def _never_fail_to_print() -> None:
    """Characters that the terminal's encoding lacks become escapes instead of exceptions."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # tests replace the streams
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _print_error(message: str, hint: str | None) -> None:
    from sberf.views.text import printable_lines

    print(f"sberf: error: {printable_lines(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {printable_lines(hint)}", file=sys.stderr)


def _describe(error: OSError) -> str:
    where = f": '{os.fsdecode(error.filename)}'" if error.filename else ""
    return f"{error.strerror or error}{where}"


def _discard_stdout() -> None:
    """Whoever read our output has left: what is still buffered goes nowhere, without a second error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
