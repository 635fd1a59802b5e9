"""Recordings never overwrite what is no recording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sberf.capture.output import Output
from sberf.errors import CaptureError


def write_recording(path: Path, mark: str) -> None:
    path.mkdir()
    (path / "meta.json").write_text(json.dumps({"format": "sberf-recording", "mark": mark}))


def mark_of(path: Path) -> str:
    return str(json.loads((path / "meta.json").read_text())["mark"])


def commit(path: Path, mark: str) -> None:
    output = Output(path)
    output.spool.mkdir()
    write_recording(output.temporary, mark)
    output.commit()
    assert not output.spool.exists()
    assert not output.temporary.exists()


def test_an_older_recording_is_kept_once(tmp_path: Path) -> None:
    for mark in ("first", "second", "third"):
        commit(tmp_path / "data", mark)
    assert mark_of(tmp_path / "data") == "third"
    assert mark_of(tmp_path / "data.old") == "second"


@pytest.mark.parametrize("taken", ["data", "data.old"])
def test_what_is_no_recording_is_refused(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).mkdir()
    (tmp_path / taken / "thesis.txt").write_text("years of work")
    with pytest.raises(CaptureError, match="is no recording"):
        Output(tmp_path / "data")


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to("nowhere")
    with pytest.raises(CaptureError, match="is no recording"):
        Output(tmp_path / "data")


def test_a_spool_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    Output(tmp_path / "data").spool.mkdir()
    with pytest.raises(CaptureError, match="killed capture") as caught:
        Output(tmp_path / "data")
    assert "sberf recover" in str(caught.value.hint)


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="cannot write to"):
        Output(tmp_path / "nothing" / "data")
