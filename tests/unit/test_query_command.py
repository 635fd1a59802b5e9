"""``sberf query``: formats and files."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import duckdb
import pytest

from sberf.__main__ import main
from sberf.recording.schema import TABLES
from tests.unit.synthetic import RecordingBuilder

NASTY = 'ev\x1b[31mil, "quoted"\nline'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    builder = RecordingBuilder()
    builder.add("app", 10, "main;work", samples=3)
    builder.add(NASTY, 11, "main")
    return builder.write(tmp_path / "data")


def query(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> tuple[str, str]:
    assert main(["query", "-i", str(path), *arguments]) == 0
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_table(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = query(capsys, path, "SELECT pid, comm, container, true AS yes FROM processes ORDER BY pid")
    assert out.splitlines() == [
        "pid  comm                            container  yes",
        " 10  app                                  NULL  true",
        ' 11  ev\\x1b[31mil, "quoted"\\x0aline       NULL  true',
    ]
    assert err == ""


def test_csv(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT comm, ns_pid, [1, 2] AS list FROM processes ORDER BY pid"
    out, _ = query(capsys, path, "--format", "csv", sql)
    rows = list(csv.reader(io.StringIO(out)))
    assert rows == [["comm", "ns_pid", "list"], ["app", "", "[1, 2]"], [NASTY, "", "[1, 2]"]]


def test_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = (
        "SELECT comm, ns_pid, [1, NULL] AS list, {'a': 'nan'::DOUBLE} AS struct, 1.5::DECIMAL(3, 1) AS d, "
        "9223372036854775808::UBIGINT AS big FROM processes ORDER BY pid"
    )
    out, _ = query(capsys, path, "--format", "json", sql)
    assert all(line.isprintable() for line in out.splitlines())
    rest = {"ns_pid": None, "list": [1, None], "struct": {"a": None}, "d": "1.5", "big": 2**63}
    assert json.loads(out) == [{"comm": "app", **rest}, {"comm": NASTY, **rest}]


@pytest.mark.parametrize("name", ["out.csv", "out.JSON", "out.parquet", "out.txt"])
def test_the_name_of_the_file_decides(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    output = tmp_path / name
    out, err = query(capsys, path, "-o", str(output), "SELECT pid FROM processes ORDER BY pid")
    assert (out, err) == ("", "")
    if name.endswith("parquet"):
        assert duckdb.sql(f"FROM '{output}'").fetchall() == [(10,), (11,)]
    else:
        expected = {
            "out.csv": "pid\n10\n11\n",
            "out.JSON": '[\n {"pid": 10},\n {"pid": 11}\n]\n',
            "out.txt": "pid\n 10\n 11\n",
        }
        assert output.read_text() == expected[name]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", name]


@pytest.mark.parametrize("form", ["csv", "json", "table", "parquet"])
def test_a_failing_query_leaves_the_file(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    output = tmp_path / "out"
    output.write_text("older")
    sql = "SELECT CASE WHEN pid = 11 THEN comm::INT END FROM processes"
    assert main(["query", "-i", str(path), "--format", form, "-o", str(output), sql]) == 1
    assert output.read_text() == "older"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "out"]


def test_output_into_nothing(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "-i", str(path), "-o", str(tmp_path / "no/such.csv"), "FROM samples"]) == 2
    assert "is no directory" in capsys.readouterr().err


def test_parquet_cannot_be_printed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "-i", str(path), "--format", "parquet", "FROM samples"]) == 2
    assert "-o FILE" in capsys.readouterr().err


def test_stdin(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 42 AS answer\n-- a comment"))
    assert query(capsys, path, "-")[0] == "answer\n    42\n"


def test_no_rows(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = query(capsys, path, "SELECT pid FROM processes WHERE pid = 0")
    assert (out, err) == ("pid\n", "sberf: the query has no rows\n")
    assert query(capsys, path, "--format", "json", "SELECT 1 WHERE false") == ("[\n]\n", "")
    assert query(capsys, path, "--format", "csv", "SELECT 1 AS a WHERE false") == ("a\n", "")


def test_wrong_sql(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "-i", str(path), "SELECT nope FROM samples"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "at line 1, column 8:\n  SELECT nope FROM samples\n         ^\n" in shown.err


def test_more_rows_than_are_measured(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = query(capsys, path, "SELECT i, 'x' || i AS x FROM range(25000) t(i)")
    lines = out.splitlines()
    assert len(lines) == 25001
    assert lines[-1].split() == ["24999", "x24999"]


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "--schema"]) == 0
    out = capsys.readouterr().out
    for table in TABLES:
        assert f"{table.name}: a row is {table.row}" in out
        for column in table.columns:
            assert any(line.split()[:2] == [column.name, column.type] for line in out.splitlines())
    assert main(["query", "--schema", "--format", "json"]) == 0
    assert [table["name"] for table in json.loads(capsys.readouterr().out)] == [t.name for t in TABLES]
