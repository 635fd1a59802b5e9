"""The first step of every analysis: add up the samples that the filters keep, by stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sberf.analysis.filters import Filters
from sberf.analysis.naming import LOST_STACK, NAMED_STACKS
from sberf.analysis.selection import Event, chosen_event, select_samples
from sberf.recording.recording import Recording

GROUP_KEYS = {"process": "p.comm", "comm": "t.comm", "pid": "p.pid", "tid": "t.tid", "cpu": "h.cpu"}
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
    keys = [key for key in ("thread_id", "cpu") if _needs(key, by)]
    added_up = f"""
        SELECT {", ".join(["stack_id", *keys])}, sum(weight)::UBIGINT AS weight, count(*)::UBIGINT AS samples
        FROM samples WHERE {selection.where} GROUP BY ALL"""
    if by:
        named = ", ".join(f'{GROUP_KEYS[key]} AS "{key}"' for key in by)
        threads = "LEFT JOIN threads t USING (thread_id) LEFT JOIN processes p USING (process_id)"
        added_up = f"""
            SELECT h.stack_id, {named}, sum(h.weight)::UBIGINT AS weight, sum(h.samples)::UBIGINT AS samples
            FROM ({added_up}) h {threads if "thread_id" in keys else ""} GROUP BY ALL"""
    recording.rows(f"CREATE OR REPLACE TEMP TABLE hits AS {added_up}", selection.parameters)
    recording.rows(
        f"""
        CREATE OR REPLACE TEMP TABLE hit_stacks AS
        SELECT h.stack_id, coalesce(s."end", 'lost') AS "end",
               coalesce(s.frame_ids, {LOST_STACK}) AS frame_ids
        FROM (SELECT DISTINCT stack_id FROM hits) h LEFT JOIN ({NAMED_STACKS}) s USING (stack_id)"""
    )
    return event


def _needs(column: str, by: Sequence[str]) -> bool:
    return any((key == "cpu") == (column == "cpu") for key in by)


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
