"""The table of functions."""

from __future__ import annotations

from collections.abc import Iterator

from sberf.analysis.functions import SORT_KEYS, FunctionTable
from sberf.units import format_count, format_percent
from sberf.views.text import Column, Paint, base_name, column_widths, format_weight, layout_lines, printable

_TITLES = {
    "container": "Container",
    "process": "Process",
    "comm": "Thread",
    "pid": "PID",
    "tid": "TID",
    "cpu": "CPU",
    "dso": "Module",
    "sym": "Function",
    "line": "Source line",
}
_LEAST_WIDTHS = {"container": 8, "process": 8, "comm": 8, "dso": 8, "sym": 30, "line": 12}


def function_lines(table: FunctionTable, width: int | None, paint: Paint | None = None) -> Iterator[str]:
    """A line for each row of ``table``, after a line of titles.

    Args:
        table: What to show.
        width: Columns that the lines may take; None for as many as they need.
        paint: Colours for percentages, or None.
    """
    keys = [key for key in SORT_KEYS if key in table.by]
    columns = [
        Column("Self", right=True),
        Column("Total", right=True),
        Column("Self time" if table.unit == "ns" else "Self count", right=True),
        *(Column(_TITLES[key], right=key not in _LEAST_WIDTHS, least=_LEAST_WIDTHS.get(key)) for key in keys),
    ]
    cells = _cells(table, keys)
    yield from layout_lines(columns, cells, column_widths(columns, cells, width), paint=paint)
    if table.hidden_rows:
        yield f"# {format_count(table.hidden_rows)} more rows: see --min-percent and --limit"


def _cells(table: FunctionTable, keys: list[str]) -> list[list[str]]:
    whole, unit = table.total_weight or 1, table.unit
    return [
        [
            format_percent(row.self_weight / whole),
            format_percent(row.total_weight / whole),
            format_weight(row.self_weight, unit),
            *[_cell(key, getattr(row, key)) for key in keys],
        ]
        for row in table.rows
    ]


def _cell(key: str, value: str | int | None) -> str:
    if value is None:
        return "" if key == "line" else "[unknown]"
    return printable(base_name(str(value)) if key == "line" else str(value))
