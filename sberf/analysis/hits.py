"""The first step of every analysis: add up the samples that the filters keep, by stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sberf.analysis.filters import Filters
from sberf.analysis.naming import CONTAINER_NAME, LOST_STACK, PROCESS_NAME, named_stacks
from sberf.analysis.selection import Event, chosen_event, select_samples
from sberf.recording.recording import Recording

GROUP_KEYS = {
    "container": CONTAINER_NAME,
    "process": PROCESS_NAME,
    "comm": "t.comm",
    "pid": "p.pid",
    "tid": "t.tid",
    "cpu": "h.cpu",
}
"""What samples can be told apart by, beside their stacks: the key's name -> SQL."""


class StackEnd(NamedTuple):
    """How much of the weight has stacks that ended in one way (see the column ``stacks.end``)."""

    end: str
    weight: int
    samples: int


def gather_hits(recording: Recording, filters: Filters, by: Sequence[str] = ()) -> Event:
    """Make the temporary tables ``hits`` and ``hit_stacks``.

    ``hits`` has a row for each distinct stack in each group: stack_id, the columns ``by``, weight,
    samples.  ``hit_stacks`` has a row for each distinct stack: stack_id, end, frame_ids (leaf
    first, never empty).

    The samples are the large table.  They are read here, once, and added up before anything is
    joined.

    Args:
        recording: The recording.
        filters: Which samples.
        by: Some of ``GROUP_KEYS``: what to keep apart.

    Raises:
        QueryError: The filters' event was not recorded.
        RecordingError: The recording is damaged.
    """
    event = chosen_event(recording, filters)
    selection = select_samples(recording, filters, event.name)
    stacks = named_stacks(recording, filters.inlines)
    recording.rows(f"CREATE OR REPLACE TEMP TABLE hits AS {_hits(selection.where, by)}", selection.parameters)
    recording.rows(
        f"""
        CREATE OR REPLACE TEMP TABLE hit_stacks AS
        SELECT h.stack_id, coalesce(s."end", 'lost') AS "end",
               coalesce(s.frame_ids, {LOST_STACK}) AS frame_ids
        FROM (SELECT DISTINCT stack_id FROM hits) h LEFT JOIN ({stacks}) s USING (stack_id)"""
    )
    return event


def _hits(where: str, by: Sequence[str]) -> str:
    """The SQL of ``hits``: grouped by the numbers of threads or processes first, by names then."""
    columns, joins = ["stack_id"], ""
    if not {"comm", "tid"}.isdisjoint(by):
        columns.append("thread_id")
        joins = "LEFT JOIN threads t USING (thread_id) LEFT JOIN processes p USING (process_id)"
    elif not {"container", "process", "pid"}.isdisjoint(by):
        columns.append("process_id")
        joins = "LEFT JOIN processes p USING (process_id)"
    if "cpu" in by:
        columns.append("cpu")
    source = "samples" + (" LEFT JOIN threads USING (thread_id)" if "process_id" in columns else "")
    numbered = f"""
        SELECT {", ".join(columns)}, sum(weight)::UBIGINT AS weight, count(*)::UBIGINT AS samples
        FROM {source} WHERE {where} GROUP BY ALL"""
    if not by:
        return numbered
    # Beside its container a process needs no other word for it.
    keys = GROUP_KEYS | ({"process": "p.comm"} if "container" in by else {})
    named = ", ".join(f'{keys[key]} AS "{key}"' for key in by)
    return f"""
        SELECT h.stack_id, {named}, sum(h.weight)::UBIGINT AS weight, sum(h.samples)::UBIGINT AS samples
        FROM ({numbered}) h {joins} GROUP BY ALL"""


def stack_ends(recording: Recording) -> tuple[StackEnd, ...]:
    """How the stacks of ``hits`` ended, heaviest first."""
    rows = recording.rows(
        """
        SELECT "end", sum(weight)::UBIGINT AS weight, sum(samples)::UBIGINT
        FROM hits JOIN hit_stacks USING (stack_id) GROUP BY "end" ORDER BY weight DESC, "end" """
    )
    return tuple(StackEnd(*row) for row in rows)


def total_hits(recording: Recording) -> tuple[int, int]:
    """Weight and number of the samples in ``hits``."""
    [(weight, samples)] = recording.rows(
        "SELECT coalesce(sum(weight), 0)::UBIGINT, coalesce(sum(samples), 0)::UBIGINT FROM hits"
    )
    return weight, samples
