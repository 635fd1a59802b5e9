"""DuckDB's errors as sberf's: what is wrong, and where in the SQL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sberf.errors import QueryError, RecordingError, SberfError

if TYPE_CHECKING:
    import duckdb

DAMAGED_HINT = "the file is truncated or damaged: copy the recording again, or record again"
QUERY_HINT = "write one SELECT, such as SELECT event, count(*) FROM samples GROUP BY event"
SCHEMA_HINT = "sberf query --schema lists the tables and their columns"


@contextmanager
def translated_errors(sql: str | None = None, offset: int = 0) -> Iterator[None]:
    """Raise DuckDB's errors as sberf's.

    Args:
        sql: The user's SQL; None when the SQL is sberf's own, so that only the data can be at fault.
        offset: Where the user's SQL begins in the SQL that runs, in bytes.
    """
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise _translate(error, sql, offset) from None


def _translate(error: duckdb.Error, sql: str | None, offset: int) -> SberfError:
    import duckdb

    message, position = _parts(str(error))
    message = re.sub(r'\nDid you mean "(pg_|duckdb_|sqlite_|pragma_).*', "", message)  # not the recording's
    first_line = message.split("\n")[0]
    if isinstance(error, duckdb.OutOfMemoryException):
        return QueryError(f"not enough memory or disk: {first_line}", "ask for less at once")
    if isinstance(error, duckdb.PermissionException) and sql is not None:
        return QueryError("a query reads the recording's tables and nothing else", QUERY_HINT)
    if sql is None or isinstance(error, duckdb.IOException) or ".parquet" in message:
        return RecordingError(f"the recording cannot be read: {first_line}", DAMAGED_HINT)
    where = [] if position is None else _excerpt(sql, max(0, position - offset))
    return QueryError("\n".join([message, *where]), SCHEMA_HINT)


def _parts(text: str) -> tuple[str, int | None]:
    """The message and the position in the SQL (in UTF-8 bytes), from an error with errors_as_json set.

    Binder Error: {"exception_type":"Binder","exception_message":"Referenced ...","position":"7"}
    """
    try:
        parts = json.loads(text[text.index("{") :])
        position = parts.get("position")
        return str(parts["exception_message"]), None if position is None else int(position)
    except (ValueError, KeyError):
        return text, None


def _excerpt(sql: str, position: int) -> list[str]:
    """The place in words, and its line with a caret below."""
    before = sql.encode()[:position].decode(errors="replace")
    line = before.count("\n")
    start = before[before.rfind("\n") + 1 :]
    shown = sql.split("\n")[line].replace("\t", " ")
    return [f"at line {line + 1}, column {len(start) + 1}:", f"  {shown}", f"  {' ' * len(start)}^"]
