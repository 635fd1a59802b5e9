"""Open a recording and query its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sberf.errors import RecordingError
from sberf.recording.schema import FORMAT_MAJOR, FORMAT_MINOR, FORMAT_NAME, TABLES

if TYPE_CHECKING:
    import duckdb

DEFAULT_PATH = "sberf.data"


class Recording:
    """A finished recording: a directory with ``meta.json`` and Parquet tables.

    Use :func:`open_recording` to get one.  ``connection`` is a DuckDB connection in which every
    table of the recording is a view under its own name.
    """

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self.meta = meta
        self._connection: duckdb.DuckDBPyConnection | None = None

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection, opened on first use."""
        if self._connection is None:
            self._connection = _connect(self.path)
        return self._connection

    def close(self) -> None:
        """Close the DuckDB connection; the recording can be used again afterwards."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_recording(path: str | Path = DEFAULT_PATH) -> Recording:
    """Open the recording in directory ``path``.

    Raises:
        RecordingError: No recording there, or of another major version.
    """
    path = Path(path)
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordingError(f"no recording at '{path}'", "sberf record writes one") from None
    except (OSError, ValueError) as error:
        raise RecordingError(f"'{path}' is no readable recording: {error}") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT_NAME:
        raise RecordingError(f"'{path}' is no sberf recording")
    major, minor = meta["version"]["major"], meta["version"]["minor"]
    if major != FORMAT_MAJOR:
        raise RecordingError(
            f"'{path}' has format version {major}.{minor}; "
            f"this sberf reads version {FORMAT_MAJOR}.{FORMAT_MINOR}",
            "use the sberf version that wrote it",
        )
    return Recording(path, meta)


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(":memory:")
    for table in TABLES:
        file = str(path / "tables" / f"{table.name}.parquet").replace("'", "''")
        connection.execute(f"CREATE VIEW {table.name} AS SELECT * FROM read_parquet('{file}')")
    return connection
