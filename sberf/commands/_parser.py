"""The command line's parsers: one for a single command, one for all of them."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType
from typing import NoReturn

from sberf import __version__
from sberf.commands import COMMANDS
from sberf.errors import UsageError

_DESCRIPTION = "Where did the time go, and who was it waiting for?"
_EPILOG = """\
examples:
  sudo sberf record -a -d 10     record all processes for 10 seconds into sberf.data
  sberf report                   the hottest functions of sberf.data
  sberf flame                    the same as a flame graph, flame.html

'sberf COMMAND --help' describes a command."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wraps paragraphs, and leaves texts of several lines, such as examples, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        raw = argparse.RawDescriptionHelpFormatter if "\n" in text else argparse.HelpFormatter
        return raw._fill_text(self, text, width, indent)


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are exceptions, so that one place prints all errors."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", _Formatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise UsageError(message, f"see {self.prog} --help")


def load(command: str) -> ModuleType:
    """The module of one of ``COMMANDS``."""
    return importlib.import_module(f"sberf.commands.{command}")


def command_parser(command: str) -> Parser:
    """The parser of one command; imports only that command."""
    parser = Parser(prog=f"sberf {command}")
    load(command).add_arguments(parser)
    return parser


def full_parser() -> Parser:
    """The parser of all commands, for the overall help and for completion scripts."""
    parser = Parser(prog="sberf", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"sberf {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name in COMMANDS:
        module = load(name)
        module.add_arguments(commands.add_parser(name, help=module.HELP))
    return parser
