"""Which functions the time went to: self and total weight of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sberf.analysis.filters import Filters
from sberf.analysis.hits import GROUP_KEYS, StackEnd, gather_hits, stack_ends, total_hits
from sberf.analysis.naming import number_functions
from sberf.analysis.selection import NO_FILTERS
from sberf.errors import UsageError
from sberf.recording.recording import Recording

SORT_KEYS = (*GROUP_KEYS, "dso", "sym", "line")
"""What rows can be told apart by, in the order of the columns of a table."""

ORDERS = ("self", "total")
_PARTS = 4
DEFAULT_KEYS = ("sym", "dso", "process")


class FunctionRow(NamedTuple):
    """One row: what it is about (None for keys that were not asked for), then its weights.

    Args:
        container: The container's name, or the first 12 digits of its ID; ``[host]`` outside of any.
        process: Process name: ``container:process`` in a container, unless rows are told apart by
            ``container`` too.
        comm: Thread name.
        pid: Host process ID.
        tid: Host thread ID.
        cpu: CPU number.
        dso: The module's base name.
        sym: Function name, or ``module+0xoffset``.
        line: Source file and line, ``file:line``; None also where they are not known.
        kind: The module's kind (see the column ``modules.kind``); None without ``dso`` and ``sym``.
        self_weight: Weight of the samples taken in it, in the table's unit.
        total_weight: Weight of the samples taken in it or in something it called, recursion counted once.
        self_samples: The same as a number of samples.
        total_samples: The same as a number of samples.
    """

    container: str | None
    process: str | None
    comm: str | None
    pid: int | None
    tid: int | None
    cpu: int | None
    dso: str | None
    sym: str | None
    line: str | None
    kind: str | None
    self_weight: int
    total_weight: int
    self_samples: int
    total_samples: int


@dataclass(frozen=True)
class FunctionTable:
    """Self and total weights, heaviest first.

    Args:
        event: The event's name.
        unit: Unit of the weights: ``ns`` or ``count``.
        by: The keys by which rows are told apart.
        rows: The rows.
        hidden_rows: How many rows ``min_percent`` and ``limit`` left out.
        ends: How the stacks ended, heaviest first; where they ended early, callers are missing and so
            their total weight is too small.
        total_weight: Weight of all samples that the filters keep.
        total_samples: Their number.
    """

    event: str
    unit: str
    by: tuple[str, ...]
    rows: tuple[FunctionRow, ...]
    hidden_rows: int
    ends: tuple[StackEnd, ...]
    total_weight: int
    total_samples: int


def functions(
    recording: Recording,
    filters: Filters = NO_FILTERS,
    by: Sequence[str] = DEFAULT_KEYS,
    *,
    order: str = "self",
    min_percent: float = 0.0,
    limit: int | None = None,
) -> FunctionTable:
    """Self and total weight of each function, or of whatever else ``by`` names.

    Args:
        recording: The recording.
        filters: Which samples to count; without an event the first recorded one.
        by: Some of ``SORT_KEYS``.  Without ``sym`` a row is a whole module, without ``dso`` too a whole
            process, thread or CPU.
        order: ``self`` or ``total``: by which weight the rows are ordered.
        min_percent: Leave out rows whose total weight is below this part of all weight, in percent.
        limit: Leave out all but so many rows.

    Raises:
        UsageError: ``by`` is empty or has an unknown key, or ``order`` is unknown.
        QueryError: The filters' event was not recorded.
        RecordingError: The recording is damaged.
    """
    _check_keys(by)
    if order not in ORDERS:
        raise UsageError(f"unknown order '{order}'", f"orders: {', '.join(ORDERS)}")
    groups = [key for key in GROUP_KEYS if key in by]
    event = gather_hits(recording, filters, groups)
    total_weight, total_samples = total_hits(recording)
    _weigh(recording, filters.demangle, by, groups)
    least = total_weight * min_percent / 100
    rows = [FunctionRow(*row) for row in recording.rows(_heaviest(groups, order), [least, limit])]
    [(all_rows,)] = recording.rows("SELECT count(*) FROM function_weights")
    return FunctionTable(
        event=event.name,
        unit=event.unit,
        by=tuple(by),
        rows=tuple(rows),
        hidden_rows=all_rows - len(rows),
        ends=stack_ends(recording),
        total_weight=total_weight,
        total_samples=total_samples,
    )


def _check_keys(by: Sequence[str]) -> None:
    for key in by:
        if key not in SORT_KEYS:
            raise UsageError(f"unknown sort key '{key}'", f"sort keys: {', '.join(SORT_KEYS)}")
    if not by:
        raise UsageError("no sort key", f"sort keys: {', '.join(SORT_KEYS)}")


def _weigh(recording: Recording, demangle: bool, by: Sequence[str], groups: Sequence[str]) -> None:
    """Make the temporary table ``function_weights``: a row for each function in each group.

    A stack counts once for each function in it, so that recursion is not counted twice.
    """
    sym = "name" if "sym" in by else "NULL::VARCHAR"
    line = "source_line" if "line" in by else "NULL::VARCHAR"
    dso = "module" if "dso" in by else "NULL::VARCHAR"
    kind = "any_value(kind)" if "sym" in by or "dso" in by else "NULL::VARCHAR"
    number_functions(
        recording, demangle, [f"{dso} AS dso", f"{sym} AS sym", f"{line} AS line"], [f"{kind} AS kind"]
    )
    grouping = "".join(f', "{key}"' for key in groups)
    weighed = " UNION ALL ".join(_weighed(grouping, part) for part in range(_PARTS))
    recording.rows(
        f"""
        CREATE OR REPLACE TEMP TABLE function_weights AS
        SELECT function_number{grouping},
               coalesce(sum(weight) FILTER (function_number = leaf), 0)::UBIGINT AS self_weight,
               sum(weight)::UBIGINT AS total_weight,
               coalesce(sum(samples) FILTER (function_number = leaf), 0)::UBIGINT AS self_samples,
               sum(samples)::UBIGINT AS total_samples
        FROM ({weighed}) GROUP BY function_number{grouping}"""
    )


def _weighed(grouping: str, part: int) -> str:
    """A row for each function in each stack in each group, for one of ``_PARTS`` parts of the stacks.

    DuckDB works in parallel on pieces of 122 880 rows; there are often fewer stacks, with many frames each.
    """
    return f"""
        SELECT unnest(function_numbers) AS function_number, leaf{grouping}, weight, samples
        FROM (
            SELECT stack_id, numbers[frame_ids[1] + 1] AS leaf,
                   list_distinct([numbers[frame_id + 1] FOR frame_id IN frame_ids]) AS function_numbers
            FROM hit_stacks, function_numbers WHERE stack_id % {_PARTS} = {part})
        JOIN hits USING (stack_id)"""


def _heaviest(groups: Sequence[str], order: str) -> str:
    """Rows in the order of FunctionRow's fields, heaviest first; parameters: the least total, a limit."""
    weights = (
        "self_weight DESC, total_weight DESC" if order == "self" else "total_weight DESC, self_weight DESC"
    )
    columns = ", ".join(f'"{key}"' if key in groups else "NULL" for key in GROUP_KEYS)
    ties = ", ".join(str(position + 1) for position in range(len(SORT_KEYS)))
    return f"""
        SELECT {columns}, dso, sym, line, kind, self_weight, total_weight, self_samples, total_samples
        FROM function_weights JOIN functions USING (function_number)
        WHERE total_weight >= ?
        ORDER BY {weights}, {ties} LIMIT ?"""
