"""The DuckDB connection over a recording's Parquet tables: bounded, offline, and shut in.

SQL from users runs on it, so it can read the recording's tables and nothing else: no other
files, no network, no extensions, and its settings are locked.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sberf.errors import RecordingError
from sberf.recording.duckdb_errors import DAMAGED_HINT
from sberf.recording.schema import TABLES, Table

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "1GB"


def connect(
    path: Path, memory_limit: str = MEMORY_LIMIT, output: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection in which every table of the recording at ``path`` is a view of its own name.

    Args:
        path: The recording's directory.
        memory_limit: What DuckDB may use before it spills to the system's temporary directory.
        output: A file that this connection may write.

    Raises:
        RecordingError: A table is missing, damaged or of a foreign shape.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config=_settings(memory_limit))
    files = _table_files(path)
    allowed = [str(file) for file in files.values()] + ([str(output)] if output else [])
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, allowed))}]")
    connection.execute("SET enable_external_access = false")
    described = {table.name: table for table in TABLES}
    try:
        for name, file in files.items():
            _create_view(connection, name, file, described.get(name))
        # From here on DuckDB's errors are JSON, for duckdb_errors.
        connection.execute("SET errors_as_json = true")
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def _settings(memory_limit: str) -> dict[str, str | bool | int | float | list[str]]:
    spill = Path(tempfile.gettempdir()) / f"sberf-{os.getpid()}-{secrets.token_hex(8)}"
    return {
        "memory_limit": memory_limit,
        "temp_directory": str(spill),  # made on the first spill, removed on close
        "threads": len(os.sched_getaffinity(0)),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "python_enable_replacements": False,  # a Python variable is no table
    }


def _table_files(path: Path) -> dict[str, Path]:
    """Table name -> file: the described tables, and those that a newer minor version has added."""
    directory = path.resolve() / "tables"
    files = {table.name: directory / f"{table.name}.parquet" for table in TABLES}
    for name, file in files.items():
        if not file.is_file():
            raise RecordingError(f"recording '{path}' is damaged: table '{name}' is missing ({file})")
    for file in sorted(directory.glob("*.parquet")):
        if file.stem.isidentifier():
            files.setdefault(file.stem, file)
    return files


def _create_view(connection: duckdb.DuckDBPyConnection, name: str, file: Path, table: Table | None) -> None:
    """Make the view; columns that an older minor version lacks are NULL."""
    import duckdb

    source = f"read_parquet({literal(str(file))})"
    try:
        relation = connection.sql(f"FROM {source}")
        found = dict(zip(relation.columns, map(str, relation.types), strict=True))
        columns = table.columns if table else ()
        for column in columns:
            actual = found.get(column.name, column.type)
            if actual != column.type:
                wrong = f"column '{column.name}' is {actual}, not {column.type}"
                raise RecordingError(f"table '{name}' is damaged: {wrong} ({file})")
        nulls = "".join(f', NULL::{c.type} AS "{c.name}"' for c in columns if c.name not in found)
        connection.execute(f'CREATE VIEW "{name}" AS SELECT *{nulls} FROM {source}')
    except duckdb.Error as error:
        reason = str(error).split("\n")[0]
        raise RecordingError(f"table '{name}' cannot be read: {reason}", DAMAGED_HINT) from None


def literal(text: str) -> str:
    """``text`` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
