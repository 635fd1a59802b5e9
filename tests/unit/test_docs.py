"""The documentation names every command, option, table column and JSON field, and its examples parse."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sberf.commands import COMMANDS
from sberf.commands._parser import command_parser

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])


def _page(command: str) -> str:
    return (DOCS / f"{command}.md").read_text(encoding="utf-8")


def _code_words(page: str) -> set[str]:
    """Words that stand in `backticks`: of `-i`, `--input DIR` they are -i, --input, DIR."""
    return {word for code in re.findall(r"`([^`]+)`", page) for word in re.split(r"[ ,|=\[\]]+", code)}


def _actions(command: str) -> Iterator[argparse.Action]:
    yield from (a for a in command_parser(command)._actions if not isinstance(a, argparse._HelpAction))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_page(command: str) -> None:
    assert _page(command).startswith(f"# sberf {command}\n")
    assert f"({command}.md)" in (DOCS / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(command: str) -> None:
    words = _code_words(_page(command))
    for action in _actions(command):
        if action.help is argparse.SUPPRESS:
            continue
        missing = [name for name in _names(action) if name not in words]
        assert not missing, f"docs/{command}.md does not say `{missing[0]}`"


def _names(action: argparse.Action) -> list[str]:
    """An option's strings; for an argument its choices, or the words that the help calls it by."""
    if action.option_strings or action.choices:
        return [*action.option_strings] or list(map(str, action.choices or ()))
    metavar = action.metavar or action.dest.upper()
    return re.findall(r"\w+", metavar if isinstance(metavar, str) else " ".join(metavar))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    parser = command_parser(command)
    assert parser.description
    assert f"sberf {command}" in (parser.epilog or "")
    assert all(action.help for action in _actions(command)), "an option without help"


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_column_is_documented() -> None:
    written = (DOCS / "tables.md").read_text(encoding="utf-8")
    assert written.splitlines() == list(_script("docs_tables").page()), "run make fmt"


def _links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            yield page, target


@pytest.mark.parametrize(("page", "target"), _links(), ids=lambda value: getattr(value, "name", str(value)))
def test_links_lead_somewhere(page: Path, target: str) -> None:
    assert (page.parent / target).exists()


def _examples() -> Iterator[str]:
    """Lines such as ``    sudo sberf record -a  # comment``, in pages and in the commands' own help."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    texts += [command_parser(command).epilog or "" for command in COMMANDS]
    for text in texts:
        for line in text.splitlines():
            found = re.match(r"\s+(?:[a-z]+:  )?(?:sudo )?(?:\.venv/bin/)?sberf ([a-z].*)", line)
            if found and found[1].split()[0] in COMMANDS:
                yield found[1]


@pytest.mark.parametrize("example", sorted(set(_examples())))
def test_examples_parse(example: str) -> None:
    """Up to a pipe, a redirection, a comment, or the help's second column."""
    example = re.split(r" [|>&;]|   | #", example)[0].replace("...", "x")
    command, *arguments = shlex.split(example, comments=True)
    command_parser(command).parse_args(arguments)
