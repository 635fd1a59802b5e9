"""What stands around a flame graph: its title, facts about the recording, and warnings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sberf.analysis.flame import FlameDiff, FlameGraph
from sberf.analysis.overview import Overview
from sberf.analysis.stack_counts import StackCounts
from sberf.units import format_count, format_duration
from sberf.views.header import lacking_callers, shortcomings
from sberf.views.text import format_weight, printable, shorten

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


def about_graph(graph: FlameGraph, overview: Overview, title: str | None = None) -> About:
    """The words around the flame graph of one recording; ``title`` replaces the one made from it."""
    subject = shlex.join(overview.command) if overview.command else overview.hostname
    circumstances = (("", fact) for fact in _circumstances(overview))
    return About(
        title=_printable_title(title or f"Flame graph of {subject}"),
        facts=(("", printable(f"{graph.event}: {_weights(graph.counts)}")), *circumstances),
        warnings=tuple(map(printable, _warnings(graph.counts, overview))),
    )


def about_diff(diff: FlameDiff, overviews: tuple[Overview, Overview], title: str | None = None) -> About:
    """The words around the difference of two recordings."""
    before, after = overviews
    facts = [("", printable(diff.event))]
    warnings = []
    for label, overview, counts in zip(("before", "after"), overviews, diff.counts, strict=True):
        facts.append(
            (label, ", ".join([printable(overview.path), _weights(counts), *_circumstances(overview)]))
        )
        warnings += [printable(f"{label}: {warning}") for warning in _warnings(counts, overview)]
    return About(
        title=_printable_title(title or f"What changed from {before.path} to {after.path}"),
        facts=tuple(facts),
        warnings=tuple(warnings),
    )


def _printable_title(title: str) -> str:
    return shorten(printable(title), _MAX_TITLE)


def _weights(counts: StackCounts) -> str:
    return (
        f"{format_weight(counts.total_weight, counts.unit)} in {format_count(counts.total_samples)} samples"
    )


def _circumstances(overview: Overview) -> Iterator[str]:
    yield f"recorded for {format_duration(overview.duration_ns)}"
    cpus = f"{overview.cpus} CPUs, " if overview.cpus else ""
    yield printable(f"{overview.hostname}, {cpus}Linux {overview.kernel} {overview.arch}")
    if overview.start_realtime_ns is not None:
        start = datetime.fromtimestamp(overview.start_realtime_ns // 10**9, UTC)
        yield start.strftime("%Y-%m-%d %H:%M:%S UTC")


def _warnings(counts: StackCounts, overview: Overview) -> tuple[str, ...]:
    return (*shortcomings(overview), *lacking_callers(counts.total_weight, counts.ends))
