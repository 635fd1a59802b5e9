"""Open a recording and query its tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sberf.errors import RecordingError
from sberf.recording.schema import FORMAT_MAJOR, FORMAT_MINOR, FORMAT_NAME

if TYPE_CHECKING:
    import duckdb
    import pyarrow  # type: ignore[import-untyped]

    from sberf.recording.check import Problem
    from sberf.recording.query import QueryResult

DEFAULT_PATH = "sberf.data"
_BATCH_ROWS = 10_000


class Recording:
    """A finished recording: a directory with ``meta.json`` and Parquet tables.

    Use :func:`open_recording` (``sberf.open``) to get one.  The analyses are functions over it, in
    ``sberf.analysis``.  Not for use from several threads at once: open it once in each.

    Args:
        path: The directory.
        meta: The content of its ``meta.json``.
    """

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self.meta = meta
        self._connection: duckdb.DuckDBPyConnection | None = None

    @property
    def start_ns(self) -> int:
        """Start of the window in which samples were taken, CLOCK_MONOTONIC nanoseconds."""
        return int(self.meta["window"]["start_ns"])

    @property
    def end_ns(self) -> int:
        """End of the window in which samples were taken, CLOCK_MONOTONIC nanoseconds."""
        return int(self.meta["window"]["end_ns"])

    @property
    def duration_ns(self) -> int:
        """Length of the window in which samples were taken, nanoseconds."""
        return self.end_ns - self.start_ns

    @property
    def losses(self) -> dict[str, Any]:
        """What was lost or throttled: ``meta.json``'s ``losses``."""
        return dict(self.meta.get("losses") or {})

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection in which every table is a view of its own name, opened on first use.

        Raises:
            RecordingError: A table is missing or damaged.
        """
        if self._connection is None:
            from sberf.recording.connection import connect

            self._connection = connect(self.path)
        return self._connection

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables.

        Raises:
            RecordingError: A table is missing or damaged.
        """
        rows = self.rows("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_oid")
        return tuple(name for (name,) in rows)

    def query(self, sql: str) -> QueryResult:
        """Run one SELECT over the tables (DuckDB's SQL); the rows are fetched as they are asked for.

        Raises:
            QueryError: The SQL is wrong, or something other than one SELECT.
            RecordingError: A table is missing or damaged.
        """
        from sberf.recording.query import run_query

        return run_query(self, sql)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of sberf's own ``sql``; for the analyses.

        Raises:
            QueryError: It takes more memory or disk than there is.
            RecordingError: A table is missing or damaged.
        """
        from sberf.recording.duckdb_errors import translated_errors

        connection = self.connection
        with translated_errors():
            rows: list[Any] = connection.execute(sql, parameters).fetchall()
            return rows

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        """The same one by one, for more rows than fit into memory; another query on the recording ends it."""
        from sberf.recording.duckdb_errors import translated_errors

        with translated_errors():
            result = self.connection.execute(sql, parameters)
            while batch := result.fetchmany(_BATCH_ROWS):
                yield from batch

    def to_arrow(self, table_or_sql: str) -> pyarrow.Table:
        """Hand a table, or the result of a SELECT, over to Arrow.

        Args:
            table_or_sql: A table's name such as ``"samples"``, or SQL.

        Raises:
            UnsupportedError: The package pyarrow is not installed.
            QueryError: The SQL is wrong.
            RecordingError: A table is missing or damaged.
        """
        from sberf.recording.query import arrow_table

        name = table_or_sql.strip()
        return arrow_table(self, f'FROM "{name}"' if name in self.tables else table_or_sql)

    def check(self) -> list[Problem]:
        """Which invariants of a recording do not hold; see :mod:`sberf.recording.check`."""
        from sberf.recording.check import check

        return check(self)

    def close(self) -> None:
        """Close the DuckDB connection; the recording can be used again afterwards."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<sberf.Recording {str(self.path)!r}>"

    def _repr_html_(self) -> str:
        from sberf.recording.html import summary_html

        return summary_html(self)


def open_recording(path: str | Path = DEFAULT_PATH) -> Recording:
    """Open the recording in directory ``path``.

    Raises:
        RecordingError: No recording there, a damaged one, or one of another major version.
    """
    path = Path(path)
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RecordingError(f"no recording at '{path}'", "sberf record writes one") from None
    except (OSError, ValueError) as error:
        raise RecordingError(f"'{path}' is no readable recording: meta.json: {error}") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT_NAME:
        raise RecordingError(f"'{path}' is no sberf recording")
    _check_version(path, meta)
    _check_shape(path, meta)
    return Recording(path, meta)


def _check_version(path: Path, meta: dict[str, Any]) -> None:
    version = meta.get("version")
    try:
        major, minor = int(version["major"]), int(version["minor"])  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        raise RecordingError(f"'{path}' is damaged: meta.json has no version") from None
    if major != FORMAT_MAJOR:
        raise RecordingError(
            f"'{path}' has format version {major}.{minor}; "
            f"this sberf reads version {FORMAT_MAJOR}.{FORMAT_MINOR}",
            "use the sberf version that wrote it",
        )


def _check_shape(path: Path, meta: dict[str, Any]) -> None:
    """The parts of meta.json on which every reader relies."""
    window, sources = meta.get("window"), meta.get("sources")
    times = [window.get("start_ns"), window.get("end_ns")] if isinstance(window, dict) else [None]
    if not all(isinstance(time_ns, int) for time_ns in times):
        raise RecordingError(f"'{path}' is damaged: meta.json has no window")
    if not isinstance(sources, list) or not all(isinstance(s, dict) and "event" in s for s in sources):
        raise RecordingError(f"'{path}' is damaged: meta.json has no sources")
