"""How stacks ended, with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sberf
from sberf.__main__ import main
from sberf.analysis import Filters, stack_quality
from tests.unit.synthetic import RecordingBuilder


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    build = RecordingBuilder()
    build.add("good", 10, "_start;main;work", samples=60)
    build.add("bad", 11, "lib.so!f;work", samples=20, end="no_table")
    build.add("bad", 11, "other.so!g", samples=5, end="not_code")
    build.add("bad", 11, "_start;main", samples=10)
    build.add("kernel", 12, "", samples=5, end="kernel_thread")
    return build.write(tmp_path / "data")


def test_ends_by_process_and_module(recording: Path) -> None:
    quality = stack_quality(sberf.open(recording))
    assert (quality.total_samples, quality.complete_samples) == (100, 75)
    assert [(row.process, row.end, row.module, row.samples) for row in quality.rows] == [
        ("good", "entry", None, 60),
        ("bad", "no_table", "lib.so", 20),
        ("bad", "entry", None, 10),
        ("bad", "not_code", "other.so", 5),
        ("kernel", "kernel_thread", None, 5),
    ]


def test_filters(recording: Path) -> None:
    quality = stack_quality(sberf.open(recording), Filters(comms=("bad",)))
    assert (quality.total_samples, quality.complete_samples) == (35, 10)


def test_text(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "-i", str(recording), "--stack-quality"]) == 0
    out = capsys.readouterr().out
    assert "75.00% of 100 stacks are complete" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["28.57%", "35", "bad"] in lines
    assert ["20", "no_table", "lib.so"] in lines


def test_json(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "-i", str(recording), "--stack-quality", "--json"]) == 0
    [quality] = json.loads(capsys.readouterr().out)["stack_quality"]
    assert quality["complete_samples"] == 75
    assert quality["rows"][1]["module"] == "lib.so"
