#!/usr/bin/env python3
"""Print docs/tables.md, the description of a recording's tables, from sberf/recording/schema.py."""

from __future__ import annotations

from collections.abc import Iterator

from sberf.recording.schema import TABLES, Table

INTRODUCTION = """\
# The tables of a recording

Parquet files in `NAME.data/tables/`, and tables of [`sberf query`](query.md). Times are CLOCK_MONOTONIC
nanoseconds.
Text from the traced system that is not UTF-8 is kept with `\\xNN` escapes. A type with `?` can be NULL.

This page is made from `sberf/recording/schema.py` by `make fmt`.
"""


def main() -> None:
    """Print the page."""
    print("\n".join(page()))


def page() -> Iterator[str]:
    """The page's lines."""
    yield from INTRODUCTION.splitlines()
    for table in TABLES:
        yield ""
        yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"## {table.name}"
    yield ""
    yield f"A row is {table.row}."
    yield ""
    yield "| column | type | meaning |"
    yield "| --- | --- | --- |"
    for column in table.columns:
        yield f"| `{column.name}` | {column.type}{'?' * column.nullable} | {column.meaning} |"


if __name__ == "__main__":
    main()
