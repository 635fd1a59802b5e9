"""Opening recordings: versions, damage, hostile paths, what a newer or older sberf wrote."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sberf
from sberf.analysis import functions, samples, stack_counts
from sberf.errors import QueryError, RecordingError, UnsupportedError
from sberf.recording.schema import FORMAT_MAJOR, FORMAT_MINOR, TABLES
from tests.unit.synthetic import PERIOD_NS, START_NS, RecordingBuilder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    builder = RecordingBuilder()
    builder.add("app", 10, "main;work", samples=3)
    builder.add("app", 11, "main;wait", samples=2)
    return builder.write(tmp_path / "data")


def edit_meta(path: Path, **changes: Any) -> Path:
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, **changes}))
    return path


def rewrite(path: Path, table: str, select: str) -> None:
    """Replace a table by a query over it, in which it is called t."""
    file = path / "tables" / f"{table}.parquet"
    new = file.with_suffix(".new")
    duckdb.sql(f"COPY (WITH t AS (FROM '{file}') {select}) TO '{new}' (FORMAT parquet)")
    new.replace(file)


def test_facts(path: Path) -> None:
    with sberf.open(path) as recording:
        assert recording.tables == tuple(table.name for table in TABLES)
        assert recording.start_ns == START_NS
        assert recording.duration_ns == 5 * PERIOD_NS
        assert recording.losses["dropped_records"] == 0
        assert str(path) in repr(recording)


def test_a_closed_recording_opens_again(path: Path) -> None:
    recording = sberf.open(path)
    recording.close()
    assert recording.query("SELECT count(*) FROM samples").rows() == [(5,)]


def test_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no recording at") as error:
        sberf.open(tmp_path / "nothing")
    assert error.value.hint == "sberf record writes one"
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match="no recording at"):
        sberf.open(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "other"}', "\xff"])
def test_foreign_meta(path: Path, text: str) -> None:
    (path / "meta.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordingError, match=r"no readable recording|no sberf recording"):
        sberf.open(path)


def test_unknown_major_version_names_both(path: Path) -> None:
    edit_meta(path, version={"major": FORMAT_MAJOR + 1, "minor": 3})
    with pytest.raises(
        RecordingError, match=rf"version {FORMAT_MAJOR + 1}\.3.*{FORMAT_MAJOR}\.{FORMAT_MINOR}"
    ):
        sberf.open(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": None},
        {"version": {"major": "x"}},
        {"window": {}},
        {"window": 3},
        {"sources": [1]},
        {"sources": {}},
    ],
)
def test_damaged_meta(path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(RecordingError, match=r"is damaged: meta\.json"):
        sberf.open(edit_meta(path, **changes))


def test_newer_minor_version(path: Path) -> None:
    """It may have columns and tables that this version does not know."""
    edit_meta(path, version={"major": FORMAT_MAJOR, "minor": FORMAT_MINOR + 1})
    rewrite(path, "samples", "SELECT *, 7 AS news FROM t")
    (path / "tables" / "samples.parquet").with_name("slices.parquet").write_bytes(
        (path / "tables" / "threads.parquet").read_bytes()
    )
    with sberf.open(path) as recording:
        assert recording.query("SELECT DISTINCT news FROM samples").rows() == [(7,)]
        assert "slices" in recording.tables
        assert functions(recording).total_samples == 5


def test_older_minor_version_lacks_a_column(path: Path) -> None:
    rewrite(path, "processes", "SELECT * EXCLUDE (container, exit_code) FROM t")
    rewrite(path, "frames", "SELECT * EXCLUDE (inlined_in) FROM t")
    with sberf.open(path) as recording:
        assert recording.query("SELECT DISTINCT container, exit_code FROM processes").rows() == [(None, None)]
        assert functions(recording).total_samples == 5


@pytest.mark.parametrize("table", [table.name for table in TABLES])
@pytest.mark.parametrize("keep", [0, 10, -5])
def test_truncated_table(path: Path, table: str, keep: int) -> None:
    file = path / "tables" / f"{table}.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with sberf.open(path) as recording, pytest.raises(RecordingError, match=f"'{table}'") as error:
        functions(recording)
    assert "truncated" in (error.value.hint or "")


def test_missing_table(path: Path) -> None:
    (path / "tables" / "frames.parquet").unlink()
    with sberf.open(path) as recording, pytest.raises(RecordingError, match="table 'frames' is missing"):
        _ = recording.connection


def test_column_of_another_type(path: Path) -> None:
    rewrite(path, "samples", "SELECT * REPLACE (cpu::VARCHAR AS cpu) FROM t")
    with sberf.open(path) as recording, pytest.raises(RecordingError, match="column 'cpu' is VARCHAR"):
        _ = recording.connection


def test_damaged_pages(path: Path) -> None:
    """A footer that is whole, over data that is not."""
    file = path / "tables" / "stacks.parquet"
    data = bytearray(file.read_bytes())
    data[4:60] = b"\xff" * 56
    file.write_bytes(data)
    with sberf.open(path) as recording, pytest.raises(RecordingError):
        functions(recording)


def test_dangling_stack_keeps_its_weight(path: Path) -> None:
    rewrite(path, "stacks", "SELECT * FROM t LIMIT 1")
    with sberf.open(path) as recording:
        table = functions(recording)
        assert table.total_samples == 5
        assert [(row.sym, row.self_samples) for row in table.rows if row.dso == "[unknown]"] == [
            ("[no stack: lost]", 2)
        ]
        assert stack_counts(recording).total_samples == 5
        assert len(list(samples(recording).samples)) == 5


def test_dangling_frame(path: Path) -> None:
    rewrite(path, "frames", "SELECT * FROM t WHERE frame_id > 0")
    with sberf.open(path) as recording:
        for analysis in (functions, stack_counts, samples):
            with pytest.raises(RecordingError, match="frame 0"):
                analysis(recording)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["it's", "we[ir]d*?{a,b}", "\x1b[31m\n", "ünï cödé", "a;DROP VIEW samples"])
def test_hostile_directory_names(path: Path, name: str) -> None:
    hostile = path.rename(path.with_name(name))
    with sberf.open(hostile) as recording:
        assert recording.query("SELECT count(*) FROM samples").rows() == [(5,)]


def test_relative_path_survives_chdir(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with sberf.open("data") as recording:
        assert recording.query("SELECT count(*) FROM samples").rows() == [(5,)]


def test_to_arrow(path: Path) -> None:
    pytest.importorskip("pyarrow")
    with sberf.open(path) as recording:
        assert recording.to_arrow("samples").num_rows == 5
        assert recording.to_arrow("SELECT 42 AS answer").to_pydict() == {"answer": [42]}
        with pytest.raises(QueryError, match="nothing"):
            recording.to_arrow("nothing")


def test_to_arrow_without_pyarrow(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with sberf.open(path) as recording, pytest.raises(UnsupportedError, match="pyarrow") as error:
        recording.to_arrow("samples")
    assert "pip install" in (error.value.hint or "")


def test_html_is_escaped(path: Path) -> None:
    edit_meta(
        path, command_line=["sberf", "record", "--", "<script>alert(1)</script>"], warnings=["a <b> & c"]
    )
    html = sberf.open(path)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "a &lt;b&gt; &amp; c" in html
    assert html.startswith("<table>")


def test_html_shows_losses(path: Path) -> None:
    edit_meta(path, losses={"dropped_records": 1234, "max_sample_rate_before": 5, "throttled": 0})
    html = sberf.open(path)._repr_html_()
    assert "dropped_records 1,234" in html
    assert "max_sample_rate" not in html
