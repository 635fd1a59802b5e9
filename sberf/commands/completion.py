"""``sberf completion``: the script that lets a shell complete sberf's command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

HELP = "print the completion script for bash or zsh"

_DESCRIPTION = "Prints a script that lets the shell complete sberf's commands, options and directories."
_EPILOG = """\
examples:
  bash:  sberf completion bash > ~/.local/share/bash-completion/completions/sberf
  zsh:   sberf completion zsh > ~/.zfunc/_sberf    (in a directory of $fpath)
  now:   source <(sberf completion bash)"""

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

    from sberf.commands._parser import full_parser

    parser = full_parser()
    for action in actions_of(parser):
        if kind := _kind_of(action):
            action.complete = getattr(shtab, kind)  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=args.shell))
    return 0


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All options and arguments of the parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions_of(command)


def _kind_of(action: argparse.Action) -> str | None:
    """What shtab should complete, by the name that the help gives to the value."""
    names = action.metavar if isinstance(action.metavar, tuple) else (action.metavar,)
    if set(names) & set(_DIRECTORIES):
        return "DIRECTORY"
    return "FILE" if set(names) & set(_FILES) else None
