"""``sberf completion``: the script that lets a shell complete sberf's command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from types import ModuleType

HELP = "print the completion script for bash or zsh"

_DESCRIPTION = "Prints a script that lets the shell complete sberf's commands, options and directories."
_EPILOG = """\
examples:
  bash:  sberf completion bash > ~/.local/share/bash-completion/completions/sberf
  zsh:   sberf completion zsh > ~/.zfunc/_sberf    (in a directory of $fpath)
  here:  eval "$(sberf completion bash)"    (only in this shell)"""

SHELLS = ("bash", "zsh")
_DIRECTORIES = ("DIR", "SPOOL", "A", "B")
_FILES = ("FILE", "PATH")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read the script")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from sberf.commands._parser import full_parser, load

    parser = full_parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                command.description = load(name).HELP  # zsh shows it beside the name: one line
                _tell_kinds(command._actions, shtab)
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _tell_kinds(actions: Iterable[argparse.Action], shtab: ModuleType) -> None:
    """Tell shtab which options and arguments take directories and files."""
    for action in actions:
        if kind := _kind_of(action):
            action.complete = getattr(shtab, kind)  # type: ignore[attr-defined]


def _kind_of(action: argparse.Action) -> str | None:
    """What shtab should complete, by the name that the help gives to the value."""
    names = action.metavar if isinstance(action.metavar, tuple) else (action.metavar,)
    if set(names) & set(_DIRECTORIES):
        return "DIRECTORY"
    return "FILE" if set(names) & set(_FILES) else None
