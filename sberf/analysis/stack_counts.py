"""Distinct stacks with their weights: the shared basis of call trees, flame graphs and folded text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sberf.analysis.filters import Filters
from sberf.analysis.hits import StackEnd, gather_hits, stack_ends
from sberf.analysis.naming import number_functions
from sberf.analysis.selection import NO_FILTERS, Event
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
        comm: Process name (``by_process``; ``container:process`` in a container) or thread name
            (``by_comm``), else None.
        pid: Host process ID (``by_process``), else None.
        frames: Indices into ``StackCounts.frames``, root first; never empty.
        weight: Sum of the samples' weights, in ``StackCounts.unit``.
        samples: Number of samples.
        container: The container's name, ``[host]`` outside of any (``by_container``), else None.
    """

    comm: str | None
    pid: int | None
    frames: tuple[int, ...]
    weight: int
    samples: int
    container: str | None = None


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
    by_container: bool = False,
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
        by_container: Keep the stacks of different containers apart.

    Raises:
        QueryError: The filters' event was not recorded.
        RecordingError: The recording is damaged.
    """
    comm_key = ["comm"] if by_comm else ["process"] if by_process else []
    keys = comm_key + (["pid"] if by_process else []) + (["container"] if by_container else [])
    grouped = grouped_stacks(recording, filters, keys)
    merged = [_stack_count(dict(zip(keys, stack.group, strict=True)), stack) for stack in grouped.stacks]
    merged.sort(
        key=lambda stack: (
            -stack.weight,
            stack.container or "",
            stack.comm or "",
            stack.pid or 0,
            stack.frames,
        )
    )
    return StackCounts(
        event=grouped.event.name,
        unit=grouped.event.unit,
        frames=grouped.frames,
        stacks=tuple(merged),
        ends=grouped.ends,
        total_weight=sum(stack.weight for stack in merged),
        total_samples=sum(stack.samples for stack in merged),
    )


def _stack_count(group: dict[str, Any], stack: GroupedStack) -> StackCount:
    comm = group.get("comm", group.get("process"))
    frames, weight, samples = stack.frames, stack.weight, stack.samples
    return StackCount(comm, group.get("pid"), frames, weight, samples, group.get("container"))


class GroupedStack(NamedTuple):
    """One distinct stack of one group: the group's values, frames (root first), weight and samples."""

    group: tuple[str | int | None, ...]
    frames: tuple[int, ...]
    weight: int
    samples: int


@dataclass(frozen=True)
class GroupedStacks:
    """Distinct stacks, kept apart by any of ``hits.GROUP_KEYS``, in no order."""

    event: Event
    frames: tuple[Frame, ...]
    stacks: list[GroupedStack]
    ends: tuple[StackEnd, ...]


def grouped_stacks(
    recording: Recording, filters: Filters, by: Sequence[str], *, lines: bool = False
) -> GroupedStacks:
    """The distinct stacks with their weights, kept apart by the keys ``by``.

    Args:
        recording: The recording.
        filters: Which samples to count.
        by: Some of ``hits.GROUP_KEYS``.
        lines: Whether the source lines of a function are told apart.

    Raises:
        QueryError: The filters' event was not recorded.
        RecordingError: The recording is damaged.
    """
    event = gather_hits(recording, filters, by)
    number_functions(
        recording,
        filters.demangle,
        ["name", "module", "kind", "inlined", *(["source_line"] if lines else [])],
        ["any_value(file ORDER BY file, line) AS file", "min(line) AS line"],
    )
    frames = recording.rows(
        "SELECT name, module, kind, file, line, inlined FROM functions ORDER BY function_number"
    )
    return GroupedStacks(
        event, tuple(Frame(*row) for row in frames), _grouped(recording, by), stack_ends(recording)
    )


def _grouped(recording: Recording, by: Sequence[str]) -> list[GroupedStack]:
    """Add up the stacks that have the same functions at different addresses."""
    recording.rows(
        """
        CREATE OR REPLACE TEMP TABLE distinct_stacks AS
        SELECT row_number() OVER () - 1 AS stack_number, * FROM (
            SELECT frames, list(stack_id) AS stack_ids FROM (
                SELECT stack_id, [numbers[frame_id + 1] FOR frame_id IN list_reverse(frame_ids)] AS frames
                FROM hit_stacks, function_numbers)
            GROUP BY frames)"""
    )
    stacks = recording.rows("SELECT frames FROM distinct_stacks ORDER BY stack_number")
    tuples = [tuple(frames) for (frames,) in stacks]
    columns = "".join(f'"{key}", ' for key in by)
    rows = recording.rows(
        f"""
        SELECT {columns} stack_number, sum(weight)::UBIGINT, sum(samples)::UBIGINT
        FROM hits
        JOIN (SELECT stack_number, unnest(stack_ids) AS stack_id FROM distinct_stacks) USING (stack_id)
        GROUP BY {columns} stack_number"""
    )
    return [GroupedStack(tuple(row[:-3]), tuples[row[-3]], row[-2], row[-1]) for row in rows]
