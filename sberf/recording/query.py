"""SQL from users: one SELECT over a recording's tables, never anything that writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sberf.errors import QueryError, UnsupportedError
from sberf.recording.connection import connect, literal
from sberf.recording.duckdb_errors import QUERY_HINT, translated_errors

if TYPE_CHECKING:
    import duckdb
    import pyarrow  # type: ignore[import-untyped]

    from sberf.recording.recording import Recording

_BATCH_ROWS = 10_000
_PARQUET = "COMPRESSION zstd, USE_TMP_FILE false"
_EXPLAIN = re.compile(r"\s*explain\s+(analyze\s+)?", re.IGNORECASE)
_ONLY_SELECT = "only one SELECT is accepted: a recording is never changed"


class QueryResult:
    """The rows of a query, fetched as they are asked for; the next query on the recording ends it.

    Args:
        connection: The DuckDB connection that has executed the query.

    Attributes:
        columns: The columns' names.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.columns = tuple(str(column[0]) for column in connection.description or [])

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while batch := self.fetch(_BATCH_ROWS):
            yield from batch

    def fetch(self, rows: int) -> list[tuple[Any, ...]]:
        """At most ``rows`` more rows; an empty list at the end."""
        with translated_errors():
            return self._connection.fetchmany(rows)

    def rows(self) -> list[tuple[Any, ...]]:
        """All remaining rows."""
        with translated_errors():
            return self._connection.fetchall()


def run_query(recording: Recording, sql: str) -> QueryResult:
    """Run one SELECT (or EXPLAIN of one).

    Raises:
        QueryError: The SQL is wrong, or something other than one SELECT.
        RecordingError: A table is missing or damaged.
    """
    connection = recording.connection
    with translated_errors(sql):
        _check_select(connection, sql)
        return QueryResult(connection.execute(sql))


def arrow_table(recording: Recording, sql: str) -> pyarrow.Table:
    """The result of one SELECT as an Arrow table.

    Raises:
        UnsupportedError: The package pyarrow is not installed.
        QueryError: The SQL is wrong, or something other than one SELECT.
        RecordingError: A table is missing or damaged.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UnsupportedError("Arrow needs the package pyarrow", "pip install 'sberf[arrow]'") from None
    connection = recording.connection
    with translated_errors(sql):
        _bind(connection, sql)
        table: pyarrow.Table = connection.sql(sql).to_arrow_table()
        return table


def write_parquet(recording: Recording, sql: str, output: Path) -> int:
    """Write the result of one SELECT to the Parquet file ``output`` and return the number of rows.

    Raises:
        QueryError: The SQL is wrong, something other than one SELECT, or the file cannot be written.
        RecordingError: A table is missing or damaged.
    """
    import duckdb

    part = output.resolve().with_name(f".{output.name}.part")
    part.touch()  # a place where nothing can be written is the system's error, not the query's
    connection = connect(recording.path, output=part)
    try:
        with translated_errors(sql):
            _bind(connection, sql)
            copy = f"COPY ({sql.rstrip().rstrip(';')}\n) TO {literal(str(part))} (FORMAT parquet, {_PARQUET})"
            try:
                [(rows,)] = connection.execute(copy).fetchall()
            except duckdb.IOException as error:
                if part.name in str(error):
                    full = "No space left on device" in str(error)
                    reason = "no space left on device" if full else "the file system refuses"
                    raise QueryError(f"cannot write '{output}': {reason}") from None
                raise
        part.replace(output)
        return int(rows)
    finally:
        connection.close()
        part.unlink(missing_ok=True)


def _check_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """The connection cannot reach other files; this keeps its own tables and settings as they are, too."""
    import duckdb

    statements = connection.extract_statements(sql)
    if not statements:
        raise QueryError("the query is empty", QUERY_HINT)
    kinds = [statement.type for statement in statements]
    explained = _EXPLAIN.match(sql)
    if kinds == [duckdb.StatementType.EXPLAIN] and explained:
        kinds = [statement.type for statement in connection.extract_statements(sql[explained.end() :])]
    if kinds != [duckdb.StatementType.SELECT]:
        raise QueryError(_ONLY_SELECT, QUERY_HINT)


def _bind(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Find the mistakes in ``sql`` by itself, before it becomes a part of other SQL."""
    _check_select(connection, sql)
    prefix = "EXPLAIN "
    with translated_errors(sql, len(prefix)):
        connection.execute(prefix + sql)
