"""The documentation names every command, option, table column and JSON field, and its examples parse."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sberf.__main__ import main
from sberf.commands import COMMANDS
from sberf.commands._parser import command_parser
from tests.unit.synthetic import RecordingBuilder

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])


def _page(command: str) -> str:
    return (DOCS / f"{command}.md").read_text(encoding="utf-8")


def _code_words(page: str) -> set[str]:
    """Words in `backticks`: of `-i`, `--input DIR` they are -i, --input, DIR, of `nodes.total` both parts."""
    words = {word for code in re.findall(r"`([^`]+)`", page) for word in re.split(r"[ ,|=\[\]]+", code)}
    return words | {part for word in words for part in word.split(".")}


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


# What to run so that every field of a command's JSON appears.
JSON_RUNS = {
    "report": [["report"], ["report", "--tree"]],
    "flame": [["flame"], ["flame", "--diff", "{input}", "{input}"]],
    "symbolize": [["symbolize", "{input}"]],
    "doctor": [["doctor"], ["doctor", "--recording", "{broken}"]],
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A sound recording that has something of everything, and one that breaks an invariant."""
    directory = tmp_path_factory.mktemp("docs")
    builder = RecordingBuilder()
    builder.add("app", 10, "main;work;libc.so.6!malloc", samples=3)
    builder.add("app", 10, "main;work;x!+0x10;[kernel]!do_syscall_64", end="depth_limit")
    builder.meta["losses"] |= {"dropped_records": 3, "missed_samples": 2, "throttled": 1}
    sound = builder.write(directory / "sound.data")
    broken = builder.write(directory / "broken.data")
    meta = json.loads((broken / "meta.json").read_text(encoding="utf-8"))
    meta["rows"]["samples"] += 1
    (broken / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return {"input": str(sound), "broken": str(broken)}


def _fields(value: Any) -> set[str]:
    """Names of all fields of objects in a JSON value; keys that are numbers (of CPUs) are data."""
    if isinstance(value, list):
        return set().union(*map(_fields, value))
    if isinstance(value, dict):
        return {key for key in value if not key.isdecimal()}.union(*map(_fields, value.values()))
    return set()


def test_every_command_with_json_is_known_here() -> None:
    with_json = [c for c in COMMANDS if any("--json" in action.option_strings for action in _actions(c))]
    assert sorted(with_json) == sorted(JSON_RUNS)


@pytest.mark.parametrize("arguments", [run for runs in JSON_RUNS.values() for run in runs], ids=" ".join)
def test_every_json_field_is_documented(
    arguments: list[str], recordings: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = [argument.format(**recordings) for argument in arguments]
    has_input = command in ("report", "flame") and "--diff" not in options
    source = ["--input", recordings["input"]] if has_input else []
    main([command, *options, *source, "--json"])
    fields = _fields(json.loads(capsys.readouterr().out))
    assert fields
    assert fields - _code_words(_page(command)) == set(), f"docs/{command}.md does not say these"


def test_meta_json_is_documented(recordings: dict[str, str]) -> None:
    meta = json.loads((Path(recordings["input"]) / "meta.json").read_text(encoding="utf-8"))
    rows = set(meta.pop("rows"))
    page = (DOCS / "recording-format.md").read_text(encoding="utf-8")
    assert rows
    assert _fields(meta) - _code_words(page) == set()


def _links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            yield page, target


@pytest.mark.parametrize(
    ("page", "target"), list(_links()), ids=lambda value: getattr(value, "name", str(value))
)
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
    example = re.split(r" [|<>&;]|   | #", example)[0].replace("...", "x")
    command, *arguments = shlex.split(example, comments=True)
    command_parser(command).parse_args(arguments)
