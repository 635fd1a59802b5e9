"""Why a result is empty."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace

from sberf.analysis.filters import Filters
from sberf.analysis.naming import CONTAINER_NAME, named_frames
from sberf.analysis.selection import NO_FILTERS, select_samples
from sberf.recording.recording import Recording
from sberf.units import format_duration

_SHOWN = 8


def why_empty(recording: Recording, filters: Filters) -> str:
    """The likely cause, one sentence, of a result without samples."""
    if not _samples(recording, NO_FILTERS):
        return (
            "the recording holds no samples: the target may have been idle (clocks count only while a "
            "thread runs) or the recording too short"
        )
    for alone, cause in _causes(recording, filters):
        if not _samples(recording, alone):
            return cause
    return "each filter matches samples, but no sample matches them all"


def _samples(recording: Recording, filters: Filters) -> int:
    selection = select_samples(recording, filters)
    [(samples,)] = recording.rows(
        f"SELECT count(*) FROM (SELECT 1 FROM samples WHERE {selection.where} LIMIT 1)", selection.parameters
    )
    return int(samples)


def _causes(recording: Recording, filters: Filters) -> Iterator[tuple[Filters, str]]:
    """Each condition alone, and what to say when it alone matches nothing."""
    for field, what, known in _CONDITIONS:
        wanted = getattr(filters, field)
        if wanted:
            names = [str(value) for (value,) in recording.rows(known)]
            alone = replace(NO_FILTERS, **{field: wanted})
            yield alone, f"no sample has {what} {_listed(map(str, wanted))}; {_near(wanted, names)}"
    if filters.start_ns is not None or filters.stop_ns is not None:
        alone = replace(NO_FILTERS, start_ns=filters.start_ns, stop_ns=filters.stop_ns)
        lasted = format_duration(recording.duration_ns)
        yield alone, f"no sample lies in that time: the recording lasted {lasted}"


_BUSY = "samples JOIN threads t USING (thread_id) JOIN processes p USING (process_id)"
_CONDITIONS = (
    ("pids", "PID", f"SELECT p.pid FROM {_BUSY} GROUP BY ALL ORDER BY count(*) DESC"),
    ("tids", "thread ID", f"SELECT t.tid FROM {_BUSY} GROUP BY ALL ORDER BY count(*) DESC"),
    ("comms", "process or thread name", f"SELECT p.comm FROM {_BUSY} GROUP BY ALL ORDER BY count(*) DESC"),
    ("containers", "container", f"SELECT {CONTAINER_NAME} FROM {_BUSY} GROUP BY ALL ORDER BY count(*) DESC"),
    (
        "dsos",
        "module",
        f"SELECT module FROM ({named_frames(demangle=True)}) GROUP BY ALL ORDER BY count(*) DESC",
    ),
    (
        "symbols",
        "function",
        f"SELECT name FROM ({named_frames(demangle=True)}) GROUP BY ALL ORDER BY count(*) DESC",
    ),
    ("cpus", "CPU", "SELECT cpu FROM samples GROUP BY cpu ORDER BY cpu"),
    ("events", "event", "SELECT event FROM samples GROUP BY event ORDER BY event"),
)


def _near(wanted: tuple[object, ...], names: list[str]) -> str:
    """The nearest names if any are near, else the first ones."""
    near = [n for value in wanted for n in difflib.get_close_matches(str(value), names, _SHOWN, 0.7)]
    if near and not str(wanted[0]).isdecimal():
        return f"near ones are {_listed(near)}"
    return f"there are {_listed(names)}"


def _listed(names: Iterator[str] | map[str] | list[str]) -> str:
    listed = list(dict.fromkeys(names))
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return ", ".join(f"'{name}'" if not name.isdecimal() else name for name in listed[:_SHOWN]) + more
