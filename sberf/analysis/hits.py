"""The first step of every analysis: add up the samples that the filters keep, by stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sberf.analysis.filters import Filters
from sberf.analysis.naming import HIT_STACKS
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
    """Make the temporary table ``hits``: stack_id, the columns ``by``, weight, samples.

    The samples are the large table.  They are read here, once, and added up before anything is
    joined; what follows works on a row for each distinct stack.

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
    columns = ", ".join(["stack_id", *keys])
    added_up = f"""
        SELECT {columns}, sum(weight) AS weight, count(*) AS samples
        FROM samples WHERE {selection.where} GROUP BY ALL"""
    if by:
        named = ", ".join(f'{GROUP_KEYS[key]} AS "{key}"' for key in by)
        threads = "LEFT JOIN threads t USING (thread_id) LEFT JOIN processes p USING (process_id)"
        added_up = f"""
            SELECT h.stack_id, {named}, sum(h.weight) AS weight, sum(h.samples) AS samples
            FROM ({added_up}) h {threads if "thread_id" in keys else ""} GROUP BY ALL"""
    recording.rows(f"CREATE OR REPLACE TEMP TABLE hits AS {added_up}", selection.parameters)
    return event


def _needs(column: str, by: Sequence[str]) -> bool:
    return any((key == "cpu") == (column == "cpu") for key in by)


def stack_ends(recording: Recording) -> tuple[StackEnd, ...]:
    """How the stacks in ``hits`` ended, heaviest first."""
    rows = recording.rows(
        f"""
        SELECT "end", sum(weight) AS weight, sum(samples)
        FROM hits JOIN ({HIT_STACKS}) USING (stack_id) GROUP BY "end" ORDER BY weight DESC, "end" """
    )
    return tuple(StackEnd(*row) for row in rows)
