"""SQL from users: what it can say, and that it can neither write nor look elsewhere."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

import sberf
from sberf.errors import QueryError
from sberf.recording.query import write_parquet
from sberf.recording.recording import Recording
from tests.unit.synthetic import RecordingBuilder


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    builder = RecordingBuilder()
    builder.add("app", 10, "main;work", samples=3)
    return sberf.open(builder.write(tmp_path / "data"))


def test_rows(recording: Recording) -> None:
    result = recording.query("SELECT pid, comm FROM processes")
    assert result.columns == ("pid", "comm")
    assert list(result) == [(10, "app")]


@pytest.mark.parametrize(
    "sql",
    [
        "FROM samples",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM a",
        "DESCRIBE samples",
        "SUMMARIZE samples",
        "EXPLAIN SELECT 1",
        "explain  analyze select count(*) from samples",
        "SELECT 1;",
        "VALUES (1)",
    ],
)
def test_accepted(recording: Recording, sql: str) -> None:
    assert recording.query(sql).rows()


@pytest.mark.parametrize(
    "sql",
    [
        "COPY samples TO '{dir}/x.csv'",
        "EXPLAIN ANALYZE COPY samples TO '{dir}/x.csv'",
        "EXPLAIN/**/ANALYZE COPY samples TO '{dir}/x.csv'",
        "CREATE TABLE t AS SELECT 1",
        "CREATE OR REPLACE VIEW samples AS SELECT 1",
        "DROP VIEW samples",
        "ATTACH '{dir}/x.db'",
        "EXPORT DATABASE '{dir}/x'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '64GB'",
        "PRAGMA enable_profiling",
        "SELECT 1; SELECT 2",
        "",
        " ; ",
    ],
)
def test_refused(recording: Recording, tmp_path: Path, sql: str) -> None:
    with pytest.raises(QueryError):
        recording.query(sql.format(dir=tmp_path))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data"]
    assert recording.query("SELECT count(*) FROM samples").rows() == [(3,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('{dir}/secret.parquet')",
        "SELECT * FROM 'https://example.com/x.parquet'",
    ],
)
def test_reads_nothing_else(recording: Recording, tmp_path: Path, sql: str) -> None:
    duckdb.sql(f"COPY (SELECT 1 AS a) TO '{tmp_path}/secret.parquet'")
    with pytest.raises(QueryError):
        recording.query(sql.format(dir=tmp_path)).rows()


def test_python_variables_are_no_tables(recording: Recording) -> None:
    secret = duckdb.sql("SELECT 1")  # noqa: F841 - DuckDB looks for variables by name
    with pytest.raises(QueryError, match="secret"):
        recording.query("SELECT * FROM secret")


def test_memory_is_bounded_and_settings_are_locked(recording: Recording) -> None:
    [(limit,)] = recording.query("SELECT current_setting('memory_limit')").rows()
    assert limit in ("953.6 MiB", "1.0 GB", "953.7 MiB")
    [(locked,)] = recording.query("SELECT current_setting('lock_configuration')").rows()
    assert locked


@pytest.mark.parametrize(
    ("sql", "place", "excerpt", "caret"),
    [
        ("SELECT nope FROM samples", "line 1, column 8", "  SELECT nope FROM samples", 9),
        (
            "SELECT 'äöü日本', nope FROM samples",
            "line 1, column 17",
            "  SELECT 'äöü日本', nope FROM samples",
            18,
        ),
        ("SELECT\n 1,\n\tnope\nFROM samples", "line 3, column 2", "   nope", 3),
        ("SELEC 1", "line 1, column 1", "  SELEC 1", 2),
        ("SELECT * FROM sample", "line 1, column 15", "  SELECT * FROM sample", 16),
        ("SELECT nosuch(cpu) FROM samples", "line 1, column 8", "  SELECT nosuch(cpu) FROM samples", 9),
        ("SELECT comm::INT FROM threads", "line 1, column 12", "  SELECT comm::INT FROM threads", None),
    ],
)
def test_errors_point_into_the_sql(
    recording: Recording, tmp_path: Path, sql: str, place: str, excerpt: str, caret: int | None
) -> None:
    for run in (
        lambda: recording.query(sql).rows(),
        lambda: write_parquet(recording, sql, tmp_path / "out.parquet"),
    ):
        with pytest.raises(QueryError) as error:
            run()
        if caret is None:  # found while running: DuckDB need not know where
            continue
        lines = error.value.message.split("\n")
        at = next(i for i, line in enumerate(lines) if line.startswith("at line"))
        assert place in lines[at]
        assert lines[at + 1] == excerpt
        assert lines[at + 2] == " " * caret + "^"


def test_long_line_has_its_true_column(recording: Recording) -> None:
    sql = "SELECT " + "cpu, " * 200 + "nope FROM samples"
    with pytest.raises(QueryError, match=f"column {7 + 5 * 200 + 1}:"):
        recording.query(sql)


def test_write_parquet(recording: Recording, tmp_path: Path) -> None:
    output = tmp_path / "it's.parquet"
    assert write_parquet(recording, "SELECT ts_ns, cpu FROM samples -- all of them", output) == 3
    [(rows,)] = duckdb.sql("SELECT count(*) FROM read_parquet(?)", params=[str(output)]).fetchall()
    assert rows == 3
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "it's.parquet"]


def test_a_failing_query_leaves_an_older_file(recording: Recording, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    output.write_text("older")
    with pytest.raises(QueryError):
        write_parquet(recording, "SELECT nope FROM samples", output)
    assert output.read_text() == "older"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "out.parquet"]
