"""Names from a traced system that try to break the terminal, the page or the JSON."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.kernel.harness import record, run_sberf
from tests.kernel.workloads import Workloads

COMMS = [b"\x1b[31mred\x07", b"<b>&\"'x", b"bad\xff\xfeutf", b"two\nlines\r", b"\xe2\x80\xaertl\xe2\x80\xac"]
# Escape, bell, C1 and bidi controls do not reach a terminal or a page as they are.
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def recorded(workloads: Workloads, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hostile")
    program = directory / "a <script>alert(1) <b>& \x1b[2J 'q\" b"
    shutil.copy(workloads.build("hostile"), program)
    script = directory / "run.sh"
    lines = [b"#!/bin/sh\n"]
    for comm in COMMS:
        lines.append(b'"$1" \'' + comm.replace(b"'", b"'\\''") + b"' 100\n")
    script.write_bytes(b"".join(lines))
    record(directory / "hostile.data", "-F", "4999", "--", "sh", script, program)
    return directory / "hostile.data"


@pytest.mark.parametrize(
    "command",
    [
        ("report",),
        ("report", "--tree"),
        ("report", "-s", "comm,process,dso,sym"),
        ("script",),
        ("script", "--folded"),
        ("query", "SELECT comm, cmdline, exe FROM processes"),
        ("query", "SELECT path FROM modules"),
    ],
)
def test_text_is_clean(recorded: Path, command: tuple[str, ...]) -> None:
    run = run_sberf(command[0], "-i", recorded, *command[1:])
    assert run.status == 0, run.err
    assert "harmless" in run.out or command[0] == "query"
    found = [match.group() for match in FORBIDDEN.finditer(run.out.replace("\n", "").replace("\t", ""))]
    assert found == []


def test_json_reads_back(recorded: Path) -> None:
    for command in (("report", "--json"), ("report", "--tree", "--json"), ("flame", "--json")):
        run = run_sberf(command[0], "-i", recorded, *command[1:])
        assert run.status == 0, run.err
        assert "harmless" in json.dumps(json.loads(run.out))


@pytest.mark.parametrize("option", [(), ("--svg",)])
def test_pictures_carry_no_markup_of_the_names(
    recorded: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    picture = tmp_path / "flame.out"
    run = run_sberf("flame", "-i", recorded, "-o", picture, *option)
    assert run.status == 0, run.err
    text = picture.read_text()
    assert "<script>alert" not in text
    assert "<b>&" not in text
    assert not FORBIDDEN.search(text.replace("\n", "").replace("\t", ""))


def test_broken_bytes_are_escaped_not_lost(recorded: Path) -> None:
    run = run_sberf("query", "-i", recorded, "SELECT comm FROM threads", "--format", "json")
    comms = {row["comm"] for row in json.loads(run.out)}
    assert "bad\\xff\\xfeutf" in comms
    assert "<b>&\"'x" in comms
