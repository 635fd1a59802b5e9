"""The rows of a query as an aligned table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from sberf.recording.schema import Table
from sberf.views.text import Column, column_widths, layout_lines, printable

# The first rows decide how wide the columns are; the rest is not kept in memory.
_MEASURED_ROWS = 1000
_LEAST_WIDTH = 8


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]], width: int | None) -> Iterator[str]:
    """An aligned table: numbers to the right, NULL spelled out.

    Args:
        columns: The columns' names.
        rows: The rows, read as the lines are.
        width: Columns that the lines may take; None for as many as they need.
    """
    iterator = iter(rows)
    first = list(islice(iterator, _MEASURED_ROWS))
    numbers = [_all_numbers(row[i] for row in first) for i in range(len(columns))]
    layout = [
        Column(printable(name), right=number, least=None if number or width is None else _LEAST_WIDTH)
        for name, number in zip(columns, numbers, strict=True)
    ]
    measured = [_cells(row) for row in first]
    widths = column_widths(layout, measured, width)
    yield from layout_lines(layout, chain(measured, map(_cells, iterator)), widths)


def _cells(row: Sequence[Any]) -> list[str]:
    return [printable("NULL" if value is None else _text(value)) for value in row]


def _all_numbers(values: Iterable[Any]) -> bool:
    return all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values
    )


def _text(value: Any) -> str:
    if isinstance(value, (list, dict, tuple, bool)):
        return json.dumps(_jsonable(value), ensure_ascii=False)
    return str(value)


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, safe: bool) -> Iterator[str]:
    """CSV as RFC 4180 has it, but for line feeds as line ends; NULL is an empty field.

    Args:
        columns: The columns' names.
        rows: The rows, read as the lines are.
        safe: Whether control characters become visible escapes: the lines go to a terminal.
    """
    show = printable if safe else str
    for row in chain([columns], rows):
        buffer = io.StringIO()
        fields = ["" if value is None else show(_text(value)) for value in row]
        csv.writer(buffer, lineterminator="").writerow(fields)
        yield buffer.getvalue()


def json_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """A JSON array of objects, one a line."""
    objects = (json.dumps(dict(zip(columns, map(_jsonable, row), strict=True))) for row in rows)
    yield "["
    previous = next(objects, None)
    for object_ in objects:
        yield f" {previous},"
        previous = object_
    if previous is not None:
        yield f" {previous}"
    yield "]"


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    return str(value)


def schema_lines(tables: Iterable[Table]) -> Iterator[str]:
    """Every table with its columns, their types and what they mean."""
    layout = [Column("column"), Column("type"), Column("null"), Column("meaning")]
    for table in tables:
        yield f"{table.name}: a row is {table.row}"
        rows = [[c.name, c.type, "yes" if c.nullable else "no", c.meaning] for c in table.columns]
        widths = column_widths(layout, rows, None)
        for line in layout_lines(layout, rows, widths):
            yield "  " + line
        yield ""
