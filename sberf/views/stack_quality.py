"""The table of how stacks ended."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from sberf.analysis.stack_quality import COMPLETE_ENDS, QualityRow, StackQuality
from sberf.units import format_count, format_percent
from sberf.views.text import Column, Paint, column_widths, layout_lines, printable

_ENDS_OF_A_PROCESS = 8


def stack_quality_lines(
    quality: StackQuality, width: int | None, paint: Paint | None = None
) -> Iterator[str]:
    """A line for each process, and under it one for each way in which its stacks ended early.

    Args:
        quality: What to show.
        width: Columns that the lines may take; None for as many as they need.
        paint: Colours for percentages, or None.
    """
    columns = [
        Column("Complete", right=True),
        Column("Samples", right=True),
        Column("Process", least=8),
        Column("Ended early", least=12),
        Column("In the code of", least=12),
    ]
    by_process = groupby(quality.rows, key=lambda row: row.process)
    cells = [line for _, rows in by_process for line in _lines(list(rows))]
    share = quality.complete_samples / (quality.total_samples or 1)
    yield f"# {format_percent(share)} of {format_count(quality.total_samples)} stacks are complete"
    yield from layout_lines(columns, cells, column_widths(columns, cells, width), paint=paint)


def _lines(rows: list[QualityRow]) -> Iterator[list[str]]:
    samples = sum(row.samples for row in rows)
    complete = sum(row.samples for row in rows if row.end in COMPLETE_ENDS)
    process = "[unknown]" if rows[0].process is None else printable(rows[0].process)
    yield [format_percent(complete / (samples or 1)), format_count(samples), process, "", ""]
    early = [row for row in rows if row.end not in COMPLETE_ENDS]
    for row in early[:_ENDS_OF_A_PROCESS]:
        module = "[unknown]" if row.module is None else printable(row.module)
        yield ["", format_count(row.samples), "", row.end, module]
    if len(early) > _ENDS_OF_A_PROCESS:
        rest = early[_ENDS_OF_A_PROCESS:]
        yield ["", format_count(sum(row.samples for row in rest)), "", f"… {len(rest)} more", ""]
