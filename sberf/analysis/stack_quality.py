"""How far the user stacks reach: which end before the thread's entry, in which process, in whose code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sberf.analysis.filters import Filters
from sberf.analysis.hits import gather_hits, total_hits
from sberf.analysis.naming import named_frames
from sberf.analysis.selection import NO_FILTERS
from sberf.recording.recording import Recording

COMPLETE_ENDS = ("entry", "kernel_thread", "not_asked", "no_registers")
"""Ends of stacks that lack nothing: the thread's entry was reached, or there is no user stack to walk.

Half-way through an exec the old program's is gone and the new one's is not there yet.
"""


class QualityRow(NamedTuple):
    """The stacks of one process that ended in one way, in the code of one module.

    Args:
        process: Process name; None for one that is not known.
        end: See the column ``stacks.end``.
        module: Base name of the module of the last frame, the one whose caller was not found; None for
            complete stacks.
        weight: Weight of the samples, in the event's unit.
        samples: Their number.
    """

    process: str | None
    end: str
    module: str | None
    weight: int
    samples: int


@dataclass(frozen=True)
class StackQuality:
    """How the stacks of one event ended.

    Args:
        event: The event's name.
        unit: Unit of the weights: ``ns`` or ``count``.
        rows: Processes with the most samples first, in each the most frequent way first.
        total_weight: Weight of all samples.
        total_samples: Their number.
        complete_samples: Of these, the ones whose stacks lack nothing.
    """

    event: str
    unit: str
    rows: tuple[QualityRow, ...]
    total_weight: int
    total_samples: int
    complete_samples: int


def stack_quality(recording: Recording, filters: Filters = NO_FILTERS) -> StackQuality:
    """How the stacks ended, by process and by the module in which they did.

    Args:
        recording: The recording.
        filters: Which samples to count; without an event the first recorded one.

    Raises:
        QueryError: The filters' event was not recorded.
        RecordingError: The recording is damaged.
    """
    event = gather_hits(recording, filters, ["process"])
    total_weight, total_samples = total_hits(recording)
    frames = named_frames(filters.demangle)
    complete = ", ".join(f"'{end}'" for end in COMPLETE_ENDS)
    rows = recording.rows(
        f"""
        WITH ended AS (
            SELECT stack_id, "end", CASE WHEN "end" NOT IN ({complete}) THEN frame_ids[-1] END AS frame_id
            FROM hit_stacks),
        summed AS (
            SELECT process, "end", f.module, sum(weight)::UBIGINT AS weight, sum(samples)::UBIGINT AS samples
            FROM hits JOIN ended USING (stack_id) LEFT JOIN ({frames}) f USING (frame_id)
            GROUP BY ALL)
        SELECT * FROM summed
        ORDER BY sum(samples) OVER (PARTITION BY process) DESC, process, samples DESC, "end", module"""
    )
    quality = [QualityRow(*row) for row in rows]
    return StackQuality(
        event=event.name,
        unit=event.unit,
        rows=tuple(quality),
        total_weight=total_weight,
        total_samples=total_samples,
        complete_samples=sum(row.samples for row in quality if row.end in COMPLETE_ENDS),
    )
