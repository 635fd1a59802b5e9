"""Filters as SQL: the samples that a question is about.

Every analysis starts from here, so a filter means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sberf.analysis.filters import Filters
from sberf.analysis.naming import CONTAINER_NAME, named_frames, named_stacks
from sberf.errors import QueryError
from sberf.recording.recording import Recording

NO_FILTERS = Filters()


@dataclass(frozen=True)
class Event:
    """One recorded event: its name and the unit of its samples' weights (``ns`` or ``count``)."""

    name: str
    unit: str


@dataclass(frozen=True)
class Selection:
    """A condition over the table ``samples`` with its parameters, ready for ``WHERE``."""

    where: str
    parameters: tuple[Any, ...]


def recorded_events(recording: Recording) -> tuple[Event, ...]:
    """The events that were recorded, in the order in which they were asked for."""
    sources = recording.meta.get("sources") or []
    return tuple(dict.fromkeys(Event(s["event"], s.get("unit", "count")) for s in sources))


def chosen_event(recording: Recording, filters: Filters) -> Event:
    """The one event whose weights an analysis adds up: the filter's, else the first recorded.

    Raises:
        QueryError: The filters name several events (their units do not add up) or one that
            was not recorded.
    """
    recorded = {event.name: event for event in recorded_events(recording)}
    names = ", ".join(recorded) or "none"
    if len(filters.events) > 1:
        raise QueryError("weights of different events cannot be added", "choose one --event")
    if not filters.events:
        return next(iter(recorded.values()), Event("none", "count"))
    if filters.events[0] not in recorded:
        raise QueryError(f"event '{filters.events[0]}' was not recorded", f"recorded events: {names}")
    return recorded[filters.events[0]]


def select_samples(recording: Recording, filters: Filters, event: str | None = None) -> Selection:
    """The condition that all of ``filters`` hold for a row of ``samples``.

    Args:
        recording: The recording.
        filters: What to keep.
        event: Keep only this event, whatever ``filters.events`` says.
    """
    conditions: list[str] = []
    parameters: list[Any] = []

    def add(condition: str, values: Iterable[Any]) -> None:
        conditions.append(condition)
        parameters.extend(values)

    events = (event,) if event is not None else filters.events
    if events and set(events) != {recorded.name for recorded in recorded_events(recording)}:
        add(_in("event", events), events)
    if filters.cpus:
        add(_in("cpu", filters.cpus), filters.cpus)
    if filters.start_ns is not None:
        add("ts_ns >= ?", [filters.start_ns])
    if filters.stop_ns is not None:
        add("ts_ns < ?", [filters.stop_ns])
    if filters.pids or filters.tids or filters.comms or filters.containers:
        add(*_threads_condition(filters))
    for names, columns in ((filters.dsos, ("module", "path")), (filters.symbols, ("name",))):
        if names:
            stacks, frames = named_stacks(recording, filters.inlines), named_frames(filters.demangle)
            add(*_frames_condition(stacks, frames, names, columns))
    return Selection(" AND ".join(conditions) or "true", tuple(parameters))


def _in(column: str, values: tuple[Any, ...]) -> str:
    return f"{column} IN ({', '.join('?' * len(values))})"


def _matches(columns: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, list[str]]:
    """Equal or a glob.  Both are tried: names such as [kernel] hold glob characters."""
    terms = [f"{column} = ? OR {column} GLOB ?" for column in columns for _ in names]
    return " OR ".join(terms), [name for _ in columns for name in names for _ in range(2)]


def _threads_condition(filters: Filters) -> tuple[str, list[Any]]:
    conditions: list[str] = []
    parameters: list[Any] = []
    for column, values in (("p.pid", filters.pids), ("t.tid", filters.tids)):
        if values:
            conditions.append(_in(column, values))
            parameters.extend(values)
    for columns, wanted in (
        (("p.comm", "t.comm"), filters.comms),
        ((CONTAINER_NAME, "p.container"), filters.containers),
    ):
        if wanted:
            condition, names = _matches(columns, wanted)
            conditions.append(f"({condition})")
            parameters.extend(names)
    return (
        "thread_id IN (SELECT t.thread_id FROM threads t JOIN processes p USING (process_id) "
        f"WHERE {' AND '.join(conditions)})",
        parameters,
    )


def _frames_condition(
    stacks: str, frames: str, names: tuple[str, ...], columns: tuple[str, ...]
) -> tuple[str, list[str]]:
    condition, parameters = _matches(columns, names)
    return (
        "stack_id IN (SELECT stack_id FROM "
        f"(SELECT stack_id, unnest(frame_ids) AS frame_id FROM ({stacks})) "
        f"WHERE frame_id IN (SELECT frame_id FROM ({frames}) WHERE {condition}))",
        parameters,
    )
