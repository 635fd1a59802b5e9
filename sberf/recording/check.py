"""The invariants of a recording, each one a query that counts the rows that break it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sberf.errors import RecordingError
from sberf.recording.recording import Recording
from sberf.recording.schema import EMPTY_STACK_ENDS, MODULE_KINDS, STACK_ENDS, TABLES
from sberf.units import format_count


@dataclass(frozen=True)
class Problem:
    """One invariant that does not hold.

    Args:
        table: The table, or ``meta.json``.
        message: What is wrong; with ``rows``, what does not hold for them.
        rows: How many rows break the invariant; 0 when it is not about single rows.
    """

    table: str
    message: str
    rows: int = 0

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.table}: {self.message}"
        return f"{self.table}: not so in {format_count(self.rows)} rows: {self.message}"


@dataclass(frozen=True)
class Invariant:
    """What holds in every sound recording; the SQL ``broken`` counts the rows in which it does not."""

    table: str
    message: str
    broken: str


_DENSE_KEYS = ("process_id", "thread_id", "module_id", "frame_id")

# (table, column, referenced table, its key)
_REFERENCES = (
    ("processes", "parent_process_id", "processes", "process_id"),
    ("processes", "exec_from_process_id", "processes", "process_id"),
    ("threads", "process_id", "processes", "process_id"),
    ("frames", "module_id", "modules", "module_id"),
    ("frames", "inlined_in", "frames", "frame_id"),
    ("samples", "thread_id", "threads", "thread_id"),
    ("samples", "stack_id", "stacks", "stack_id"),
)


def check(recording: Recording) -> list[Problem]:
    """The invariants that do not hold in ``recording``; an empty list for a sound one."""
    try:
        problems = [*_row_counts(recording)]
        for invariant in _invariants(recording):
            [(rows,)] = recording.rows(invariant.broken)
            if rows:
                problems.append(Problem(invariant.table, invariant.message, int(rows)))
        return problems
    except RecordingError as error:  # a table that cannot be read: nothing more can be said
        return [Problem("tables", error.message)]


def _row_counts(recording: Recording) -> Iterator[Problem]:
    expected = recording.meta.get("rows")
    if not isinstance(expected, dict):
        yield Problem("meta.json", "has no rows")
        return
    for table in recording.tables:
        [(rows,)] = recording.rows(f'SELECT count(*) FROM "{table}"')
        if expected.get(table) != rows:
            yield Problem(table, f"has {format_count(rows)} rows, meta.json says {expected.get(table)}")


def _invariants(recording: Recording) -> Iterator[Invariant]:
    yield from _values()
    yield from _keys()
    yield from _references()
    yield from _lives()
    yield from _samples(recording)


def _count(table: str, condition: str) -> str:
    return f"SELECT count(*) FROM {table} WHERE {condition}"


def _list(values: tuple[str, ...]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _values() -> Iterator[Invariant]:
    for table in TABLES:
        for column in table.columns:
            if not column.nullable:
                message = f"{column.name} is never NULL"
                yield Invariant(table.name, message, _count(table.name, f'"{column.name}" IS NULL'))
    kinds, ends, empty = _list(MODULE_KINDS), _list(STACK_ENDS), _list(EMPTY_STACK_ENDS)
    unexplained = f"""len(frame_ids) = 0 AND "end" NOT IN ({empty})"""
    yield Invariant("modules", "kind is a known one", _count("modules", f"kind NOT IN ({kinds})"))
    yield Invariant("stacks", "end is a known one", _count("stacks", f'"end" NOT IN ({ends})'))
    yield Invariant("stacks", "a stack has frames unless its end says why not", _count("stacks", unexplained))
    yield Invariant("frames", "a function's name is never empty", _count("frames", "function = ''"))
    yield Invariant("samples", "weight is above 0", _count("samples", "weight = 0"))


def _keys() -> Iterator[Invariant]:
    for table in TABLES:
        key = table.columns[0].name
        if key in _DENSE_KEYS:
            expected = f"greatest(count(*), coalesce(max({key}), -1) + 1)"
            broken = f"SELECT {expected} - count(DISTINCT {key}) FROM {table.name}"
            yield Invariant(table.name, f"{key} is unique and dense from 0", broken)
    broken = "SELECT count(*) - count(DISTINCT stack_id) FROM stacks"
    yield Invariant("stacks", "stack_id is unique", broken)


def _references() -> Iterator[Invariant]:
    for table, column, target, key in _REFERENCES:
        broken = f"{column} IS NOT NULL AND {column} NOT IN (SELECT {key} FROM {target})"
        yield Invariant(table, f"{column} refers to a row of {target}", _count(table, broken))
    dangling = "frame_id NOT IN (SELECT frame_id FROM frames)"
    unnested = "(SELECT unnest(frame_ids) AS frame_id FROM stacks)"
    yield Invariant("stacks", "frame_ids refer to rows of frames", _count(unnested, dangling))
    calls = "frame_id IN (SELECT frame_id FROM frames WHERE inlined_in IS NOT NULL)"
    yield Invariant("stacks", "frame_ids are addresses, not inlined calls", _count(unnested, calls))
    other = "(inlined.module_id, inlined.address) IS DISTINCT FROM (outer_.module_id, outer_.address)"
    joined = "frames inlined JOIN frames outer_ ON inlined.inlined_in = outer_.frame_id"
    yield Invariant("frames", "an inlined call has the address that it lies in", _count(joined, other))


def _lives() -> Iterator[Invariant]:
    for table in ("processes", "threads"):
        yield Invariant(table, "start_ns is not after end_ns", _count(table, "start_ns > end_ns"))
    joined = "threads t JOIN processes p USING (process_id)"
    outside = (
        "t.start_ns < p.start_ns OR coalesce(t.end_ns > p.end_ns, p.end_ns IS NOT NULL AND t.end_ns IS NULL)"
    )
    yield Invariant("threads", "a thread lives inside its process's life", _count(joined, outside))
    for table, number in (("processes", "pid"), ("threads", "tid")):
        # In the order of their starts, a life begins only when the one before it with this number has ended.
        order = f"PARTITION BY {number} ORDER BY start_ns NULLS FIRST, end_ns NULLS LAST"
        columns = "start_ns, row_number() OVER life AS nth, lag(end_ns) OVER life AS previous_end_ns"
        lives = f"(SELECT {columns} FROM {table} WINDOW life AS ({order}))"
        overlap = "nth > 1 AND (previous_end_ns IS NULL OR start_ns IS NULL OR start_ns < previous_end_ns)"
        yield Invariant(table, f"lives with the same {number} do not overlap", _count(lives, overlap))
    joined = "processes p JOIN processes before ON p.exec_from_process_id = before.process_id"
    yield Invariant("processes", "exec keeps the PID", _count(joined, "p.pid <> before.pid"))


def _samples(recording: Recording) -> Iterator[Invariant]:
    events = tuple(str(source["event"]) for source in recording.meta["sources"])
    foreign = f"event NOT IN ({_list(events)})" if events else "true"
    yield Invariant("samples", "event is one of meta.json's sources", _count("samples", foreign))
    outside = f"ts_ns NOT BETWEEN {recording.start_ns} AND {recording.end_ns}"
    yield Invariant("samples", "ts_ns lies in meta.json's window", _count("samples", outside))
    following = "(SELECT ts_ns < lag(ts_ns) OVER () AS early FROM samples)"
    yield Invariant("samples", "samples are ordered by time", _count(following, "early"))
    joined = "samples s JOIN threads t USING (thread_id)"
    early_or_late = "s.ts_ns < t.start_ns OR s.ts_ns > t.end_ns"
    yield Invariant("samples", "a sample lies in its thread's life", _count(joined, early_or_late))
