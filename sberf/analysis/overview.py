"""What a recording holds: who was recorded, for how long, and what was lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from sberf.analysis.debug_packages import debug_packages
from sberf.recording.recording import Recording


class EventOverview(NamedTuple):
    """One recorded event.

    Args:
        event: Its name.
        unit: Unit of its samples' weights: ``ns`` or ``count``.
        frequency_hz: Samples a second that were asked for; None when a period was.
        period: Units between two samples that were asked for; None when a frequency was.
        samples: Number of samples.
        weight: Sum of their weights.
    """

    event: str
    unit: str
    frequency_hz: float | None
    period: int | None
    samples: int
    weight: int


@dataclass(frozen=True)
class Loss:
    """Something that was lost, or that makes the data less than what was asked for.

    Args:
        kind: The key in ``meta.json``'s ``losses``.
        count: How many.
        message: What that means, a sentence.
        hint: How to avoid it next time, or None.
    """

    kind: str
    count: int
    message: str
    hint: str | None


class UnnamedModule(NamedTuple):
    """A module of which some functions have no names.

    Args:
        path: Its path.
        build_id: Its GNU build-id in hex; None where it has none.
        reason: Why, such as ``stripped``.
        debug_package: The package of this system that would bring the names; None where none is known.
    """

    path: str
    build_id: str | None
    reason: str
    debug_package: str | None


# A package manager needs some milliseconds for each.
_LOOKED_UP_MODULES = 8


@dataclass(frozen=True)
class Overview:
    """What a recording holds.

    Args:
        path: The recording's directory.
        hostname, kernel, arch: The recorded machine; ``unknown`` where not recorded.
        cpus: Number of online CPUs.
        command_line: The arguments of ``sberf``.
        command: The traced command's arguments, or None.
        exit_code: The traced command's exit status, or None.
        start_realtime_ns: When recording began, nanoseconds since 1970, or None.
        duration_ns: For how long samples were taken.
        events: The recorded events.
        processes, threads: How many were seen.
        losses: What was lost; empty when nothing was.
        warnings: Sentences that a reader of the data should see.
        unnamed_modules: Sampled modules without symbols, those with the most unnamed addresses first.
        recovered: Whether the capture was killed and ``sberf recover`` finished it.
    """

    path: str
    hostname: str
    kernel: str
    arch: str
    cpus: int
    command_line: tuple[str, ...]
    command: tuple[str, ...] | None
    exit_code: int | None
    start_realtime_ns: int | None
    duration_ns: int
    events: tuple[EventOverview, ...]
    processes: int
    threads: int
    losses: tuple[Loss, ...]
    warnings: tuple[str, ...]
    unnamed_modules: tuple[UnnamedModule, ...]
    recovered: bool


def overview(recording: Recording) -> Overview:
    """Summarise a recording.

    Raises:
        RecordingError: The recording is damaged.
    """
    meta = recording.meta
    host, command = meta.get("host") or {}, meta.get("command") or {}
    [(processes, threads)] = recording.rows(
        "SELECT (SELECT count(*) FROM processes), (SELECT count(*) FROM threads)"
    )
    return Overview(
        path=str(recording.path),
        hostname=str(host.get("hostname", "unknown")),
        kernel=str(host.get("kernel", "unknown")),
        arch=str(host.get("arch", "unknown")),
        cpus=len(host.get("cpus") or []),
        command_line=tuple(map(str, meta.get("command_line") or [])),
        command=tuple(map(str, command["argv"])) if command.get("argv") else None,
        exit_code=command.get("exit_code"),
        start_realtime_ns=_start_realtime_ns(recording),
        duration_ns=recording.duration_ns,
        events=_events(recording),
        processes=processes,
        threads=threads,
        losses=losses(recording),
        warnings=tuple(map(str, meta.get("warnings") or [])),
        unnamed_modules=_unnamed_modules(recording),
        recovered=bool(meta.get("recovered")),
    )


def _start_realtime_ns(recording: Recording) -> int | None:
    clock = recording.meta.get("clock") or {}
    if "realtime_ns" not in clock or "monotonic_ns" not in clock:
        return None
    return int(clock["realtime_ns"]) + recording.start_ns - int(clock["monotonic_ns"])


def _events(recording: Recording) -> tuple[EventOverview, ...]:
    rows = recording.rows("SELECT event, count(*), sum(weight)::UBIGINT FROM samples GROUP BY event")
    counted = {event: (samples, weight) for event, samples, weight in rows}
    return tuple(
        EventOverview(
            str(source["event"]),
            str(source.get("unit", "count")),
            source.get("frequency_hz"),
            source.get("period"),
            *counted.get(source["event"], (0, 0)),
        )
        for source in recording.meta["sources"]
    )


def _unnamed_modules(recording: Recording) -> tuple[UnnamedModule, ...]:
    """Those without symbols, and those whose exported functions alone have names, if others were sampled."""
    rows = recording.rows(
        """
        WITH sampled AS (
            SELECT module_id, count(*) FILTER (function IS NULL) AS unnamed FROM frames GROUP BY module_id)
        SELECT path, build_id, any_value(
            CASE symbols WHEN 'dynsym' THEN 'only exported functions' ELSE trim(substr(symbols, 6)) END)
        FROM modules JOIN sampled USING (module_id)
        WHERE symbols LIKE 'none:%' OR (symbols = 'dynsym' AND unnamed > 0)
        GROUP BY path, build_id ORDER BY sum(unnamed) DESC, path"""
    )
    packages = debug_packages(path for path, _, _ in rows[:_LOOKED_UP_MODULES])
    return tuple(UnnamedModule(path, build_id, reason, packages.get(path)) for path, build_id, reason in rows)


_LOSSES = {
    "dropped_records": (
        "{} samples or stacks were dropped: the ring buffer was full",
        "record with a larger --buffer or a lower -F",
    ),
    "missed_samples": (
        "{} samples were missed: the kernel skipped sberf's program",
        "record with a lower -F",
    ),
    "throttled": ("the kernel throttled sampling {} times", "record with a lower -F"),
    "lost_sideband": (
        "{} notices of new mappings or processes were lost: some names may be missing",
        "record with a larger --buffer",
    ),
    "unresolved_stacks": ("{} samples have a stack whose body was lost", "record with a larger --buffer"),
}


def losses(recording: Recording) -> tuple[Loss, ...]:
    """What was lost while recording, as sentences; from ``meta.json`` alone."""
    found = []
    recorded = recording.losses
    for kind, (message, hint) in _LOSSES.items():
        count = _count(recorded.get(kind))
        if count:
            found.append(Loss(kind, count, message.format(f"{count:,}"), hint))
    before, after = (_count(recorded.get(f"max_sample_rate_{when}")) for when in ("before", "after"))
    if 0 < after < before:
        message = f"the kernel lowered its cap on the sample rate from {before:,} to {after:,} Hz"
        found.append(Loss("max_sample_rate_after", after, message, "record with a lower -F"))
    return tuple(found)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
