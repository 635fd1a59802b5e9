"""Distinct stacks with their weights: the shared basis of call trees, flame graphs and folded text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sberf.analysis.filters import Filters
from sberf.analysis.selection import NAMED_FRAMES, NO_FILTERS, Selection, chosen_event, select_samples
from sberf.errors import RecordingError
from sberf.recording.recording import Recording


@dataclass(frozen=True)
class Frame:
    """One function as it appears in stacks.

    Args:
        name: Function name, or ``module+0xoffset`` where no symbol covers the address.
        module: The module's base name, such as ``libc.so.6`` or ``[kernel]``.
        kind: kernel, kernel_module, bpf, elf, vdso, jit, anon or unknown.
        file: Source file, None where it is not known.
        line: The smallest source line that was sampled in the function, None where not known.
        inlined: Whether the call was inlined into the caller.
    """

    name: str
    module: str
    kind: str
    file: str | None
    line: int | None
    inlined: bool


class StackCount(NamedTuple):
    """One distinct stack.

    Args:
        comm: Process name (``by_process``) or thread name (``by_comm``), else None.
        pid: Host process ID (``by_process``), else None.
        frames: Indices into ``StackCounts.frames``, root first; never empty.
        weight: Sum of the samples' weights, in ``StackCounts.unit``.
        samples: Number of samples.
    """

    comm: str | None
    pid: int | None
    frames: tuple[int, ...]
    weight: int
    samples: int


class StackEnd(NamedTuple):
    """How much of the weight has stacks that ended in one way (see the column ``stacks.end``)."""

    end: str
    weight: int
    samples: int


@dataclass(frozen=True)
class StackCounts:
    """The distinct stacks of the samples that the filters keep, heaviest first.

    Args:
        event: The event's name.
        unit: Unit of all weights: ``ns`` or ``count``.
        frames: The distinct functions; stacks refer to them by index.
        stacks: The distinct stacks.
        ends: How the stacks ended, heaviest first.
        total_weight: Sum over all stacks.
        total_samples: Sum over all stacks.
    """

    event: str
    unit: str
    frames: tuple[Frame, ...]
    stacks: tuple[StackCount, ...]
    ends: tuple[StackEnd, ...]
    total_weight: int
    total_samples: int


def stack_counts(
    recording: Recording,
    filters: Filters = NO_FILTERS,
    *,
    by_process: bool = False,
    by_comm: bool = False,
) -> StackCounts:
    """Count the distinct stacks of one event.

    Two stacks are the same when they have the same functions (not the same addresses) in the
    same order.  A sample without a stack gets one frame that says why, such as
    ``[no stack: not_asked]``.

    Args:
        recording: The recording.
        filters: Which samples to count; without an event the first recorded one.
        by_process: Keep the stacks of different processes (PID and process name) apart.
        by_comm: Keep the stacks of threads with different names apart.

    Raises:
        QueryError: The filters' event was not recorded.
        RecordingError: The recording is damaged.
    """
    event = chosen_event(recording, filters)
    selection = select_samples(filters, event.name)
    frames, index_of = _distinct_frames(recording, selection)
    no_stack: dict[str, int] = {}

    def index_of_no_stack(end: str) -> int:
        if end not in no_stack:
            no_stack[end] = len(frames)
            frames.append(Frame(f"[no stack: {end}]", "[unknown]", "unknown", None, None, False))
        return no_stack[end]

    who = _who(by_process, by_comm)
    counted, ends = _merge(_raw_stacks(recording, selection, who), index_of, index_of_no_stack)
    stacks = [StackCount(*key, *totals) for key, totals in counted.items()]
    stacks.sort(key=lambda stack: (-stack.weight, stack.comm or "", stack.pid or 0, stack.frames))
    return StackCounts(
        event=event.name,
        unit=event.unit,
        frames=tuple(frames),
        stacks=tuple(stacks),
        ends=tuple(sorted((StackEnd(end, *totals) for end, totals in ends.items()), key=lambda e: -e.weight)),
        total_weight=sum(stack.weight for stack in stacks),
        total_samples=sum(stack.samples for stack in stacks),
    )


_RawStack = tuple[str | None, int | None, list[int] | None, str, int, int]
_Key = tuple[str | None, int | None, tuple[int, ...]]


def _who(by_process: bool, by_comm: bool) -> str:
    comm = "t.comm" if by_comm else "p.comm" if by_process else "NULL::VARCHAR"
    return f"{comm} AS comm, {'p.pid' if by_process else 'NULL::INTEGER'} AS pid"


def _raw_stacks(recording: Recording, selection: Selection, who: str) -> list[_RawStack]:
    """The stacks as recorded: one row for each (comm, pid, stack_id)."""
    return recording.rows(
        f"""
        WITH hits AS (
            SELECT stack_id, thread_id, sum(weight) AS weight, count(*) AS samples
            FROM samples WHERE {selection.where} GROUP BY ALL),
        totals AS (
            SELECT stack_id, {who}, sum(weight) AS weight, sum(samples) AS samples
            FROM hits LEFT JOIN threads t USING (thread_id) LEFT JOIN processes p USING (process_id)
            GROUP BY ALL)
        SELECT comm, pid, frame_ids, coalesce("end", 'lost'), weight, samples
        FROM totals LEFT JOIN stacks USING (stack_id)""",
        selection.parameters,
    )


def _distinct_frames(recording: Recording, selection: Selection) -> tuple[list[Frame], dict[int, int]]:
    """The distinct functions in the selected samples' stacks, and frame_id -> index of its function."""
    rows = recording.rows(
        f"""
        WITH used AS (
            SELECT DISTINCT unnest(frame_ids) AS frame_id FROM stacks
            WHERE stack_id IN (SELECT stack_id FROM samples WHERE {selection.where}))
        SELECT name, module, kind, any_value(file ORDER BY file, line), min(line), inlined, list(frame_id)
        FROM used JOIN ({NAMED_FRAMES}) USING (frame_id)
        GROUP BY name, module, kind, inlined ORDER BY name, module, kind, inlined""",
        selection.parameters,
    )
    index_of = {frame_id: index for index, row in enumerate(rows) for frame_id in row[6]}
    return [Frame(*row[:6]) for row in rows], index_of


def _merge(
    rows: list[_RawStack], index_of: dict[int, int], index_of_no_stack: Callable[[str], int]
) -> tuple[dict[_Key, list[int]], dict[str, list[int]]]:
    """Add up the stacks that have the same functions, and the ways in which stacks ended."""
    counted: dict[_Key, list[int]] = {}
    ends: dict[str, list[int]] = {}
    for comm, pid, frame_ids, end, weight, samples in rows:
        try:
            frames = tuple(map(index_of.__getitem__, reversed(frame_ids or ())))
        except KeyError as error:
            raise RecordingError(f"table 'stacks' refers to frame {error}, which 'frames' lacks") from None
        key = (comm, pid, frames or (index_of_no_stack(end),))
        for totals in (counted.setdefault(key, [0, 0]), ends.setdefault(end, [0, 0])):
            totals[0] += weight
            totals[1] += samples
    return counted, ends
