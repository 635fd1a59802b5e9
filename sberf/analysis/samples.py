"""The single samples in the order of time, with their stacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sberf.analysis.filters import Filters
from sberf.analysis.naming import LOST_STACK, named_frames, named_stacks
from sberf.analysis.selection import NO_FILTERS, select_samples
from sberf.errors import RecordingError
from sberf.recording.recording import Recording


class AddressedFrame(NamedTuple):
    """One frame of one sample.

    Args:
        address: The column ``frames.address``.
        name: Function name, or ``module+0xoffset``.
        path: The module's path.
        inlined: Whether the call was inlined into the caller.
    """

    address: int
    name: str
    path: str
    inlined: bool


class Sample(NamedTuple):
    """One sample.

    Args:
        ts_ns: When, CLOCK_MONOTONIC nanoseconds.
        cpu: On which CPU.
        comm: Thread name.
        pid: Host process ID.
        tid: Host thread ID.
        event: The event's name.
        weight: What the sample stands for, in the event's unit.
        stack: Index into ``Samples.stacks``.
    """

    ts_ns: int
    cpu: int
    comm: str
    pid: int
    tid: int
    event: str
    weight: int
    stack: int


@dataclass(frozen=True)
class Samples:
    """Samples and the stacks that they refer to.

    Args:
        stacks: The distinct stacks, leaf first; a sample without a stack has one frame that says why.
        samples: An iterator over the samples: it reads them as it goes, once.
    """

    stacks: tuple[tuple[AddressedFrame, ...], ...]
    samples: Iterator[Sample]


def samples(recording: Recording, filters: Filters = NO_FILTERS) -> Samples:
    """The samples that ``filters`` keep, of all events unless they name some, ordered by time.

    Args:
        recording: The recording; it must not be queried while the samples are read.
        filters: Which samples.

    Raises:
        RecordingError: The recording is damaged.
    """
    selection = select_samples(recording, filters)
    where = f"WHERE {selection.where}"
    stacks_sql, frames_sql = named_stacks(recording, filters.inlines), named_frames(filters.demangle)
    index, stacks = _stacks(recording, stacks_sql, frames_sql, where, selection.parameters)
    threads = _threads(recording)
    rows = recording.stream(
        f"SELECT ts_ns, cpu, thread_id, event, weight, stack_id FROM samples {where} ORDER BY ts_ns, cpu",
        selection.parameters,
    )
    return Samples(stacks, _samples(rows, threads, index))


_Thread = tuple[str, int, int]
_NO_THREAD = ("[unknown]", -1, -1)


def _samples(rows: Iterator[Any], threads: dict[int, _Thread], index: dict[int, int]) -> Iterator[Sample]:
    for ts_ns, cpu, thread_id, event, weight, stack_id in rows:
        comm, pid, tid = threads.get(thread_id, _NO_THREAD)
        yield Sample(ts_ns, cpu, comm, pid, tid, event, weight, index[stack_id])


def _threads(recording: Recording) -> dict[int, _Thread]:
    rows = recording.rows(
        "SELECT thread_id, t.comm, coalesce(p.pid, -1), t.tid "
        "FROM threads t LEFT JOIN processes p USING (process_id)"
    )
    return {thread_id: (comm, pid, tid) for thread_id, comm, pid, tid in rows}


def _stacks(
    recording: Recording, stacks_sql: str, frames_sql: str, where: str, parameters: Sequence[Any]
) -> tuple[dict[int, int], tuple[tuple[AddressedFrame, ...], ...]]:
    """The selected samples' stacks, and stack_id -> index of its stack."""
    rows = recording.rows(
        f"""
        SELECT stack_id, coalesce(frame_ids, {LOST_STACK})
        FROM (SELECT DISTINCT stack_id FROM samples {where}) LEFT JOIN ({stacks_sql}) USING (stack_id)""",
        parameters,
    )
    frames = {
        frame_id: AddressedFrame(*frame)
        for frame_id, *frame in recording.rows(
            f"SELECT frame_id, address, name, path, inlined FROM ({frames_sql})"
        )
    }
    try:
        stacks = tuple(tuple(frames[frame_id] for frame_id in frame_ids) for _, frame_ids in rows)
    except KeyError as error:
        raise RecordingError(f"table 'stacks' refers to frame {error}, which table 'frames' lacks") from None
    return {stack_id: number for number, (stack_id, _) in enumerate(rows)}, stacks
