"""What stands around a flame graph: its title, facts about the recording, and warnings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sberf.analysis.flame import FlameDiff, FlameGraph
from sberf.units import format_count, format_duration
from sberf.views.losses import incomplete_note, loss_notes
from sberf.views.text import format_weight, printable, shorten

if TYPE_CHECKING:
    from sberf.analysis.stack_counts import StackCounts
    from sberf.recording.recording import Recording

_MAX_TITLE = 120


@dataclass(frozen=True)
class About:
    """The words around a flame graph, all printable.

    Args:
        title: One line.
        facts: Pairs of a label (may be empty) and a value.
        warnings: Sentences.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


def about_graph(graph: FlameGraph, recording: Recording, title: str | None = None) -> About:
    """The words around the flame graph of one recording; ``title`` replaces the one made from it."""
    return About(
        title=_printable_title(title or f"Flame graph of {_subject(recording)}"),
        facts=(("", f"{graph.event}: {_weights(graph.counts)}"), *_circumstances(recording)),
        warnings=tuple(_warnings(graph.counts, recording)),
    )


def about_diff(diff: FlameDiff, recordings: tuple[Recording, Recording], title: str | None = None) -> About:
    """The words around the difference of two recordings."""
    before, after = recordings
    facts = [("", diff.event)]
    warnings = []
    for label, recording, counts in zip(("before", "after"), recordings, diff.counts, strict=True):
        circumstances = ", ".join(value for _, value in _circumstances(recording))
        facts.append((label, f"{printable(str(recording.path))}, {_weights(counts)}, {circumstances}"))
        warnings += [f"{label}: {warning}" for warning in _warnings(counts, recording)]
    return About(
        title=_printable_title(title or f"What changed from {before.path} to {after.path}"),
        facts=tuple(facts),
        warnings=tuple(warnings),
    )


def _printable_title(title: str) -> str:
    return shorten(printable(title), _MAX_TITLE)


def _subject(recording: Recording) -> str:
    """What was recorded, in a few words."""
    command: dict[str, Any] = recording.meta.get("command") or {}
    if command.get("argv"):
        return shlex.join(map(str, command["argv"]))
    return f"{_host(recording).get('hostname', 'an unknown host')}"


def _weights(counts: StackCounts) -> str:
    return (
        f"{format_weight(counts.total_weight, counts.unit)} in {format_count(counts.total_samples)} samples"
    )


def _circumstances(recording: Recording) -> Iterator[tuple[str, str]]:
    host = _host(recording)
    yield "", f"recorded for {format_duration(recording.duration_ns)}"
    cpus = host.get("cpus") or []
    where = [str(host.get("hostname", "unknown host")), f"{len(cpus)} CPUs" if cpus else ""]
    kernel = [f"Linux {host.get('kernel', '')}".strip(), str(host.get("arch", ""))]
    yield "", printable(", ".join(filter(None, [*where, " ".join(filter(None, kernel))])))
    clock = recording.meta.get("clock") or {}
    if isinstance(clock.get("realtime_ns"), int) and isinstance(clock.get("monotonic_ns"), int):
        start_ns = clock["realtime_ns"] + recording.start_ns - clock["monotonic_ns"]
        yield "", datetime.fromtimestamp(start_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _host(recording: Recording) -> dict[str, Any]:
    return recording.meta.get("host") or {}


def _warnings(counts: StackCounts, recording: Recording) -> Iterator[str]:
    yield from loss_notes(recording)
    incomplete = incomplete_note(counts.ends, counts.total_weight)
    if incomplete is not None:
        yield incomplete
