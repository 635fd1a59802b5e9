"""What a reader of a recording must know before believing it: losses and warnings, as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sberf.units import format_count, format_percent
from sberf.views.text import printable

if TYPE_CHECKING:
    from sberf.analysis.hits import StackEnd
    from sberf.recording.recording import Recording

_LOSSES = (
    ("dropped_records", "{} records were lost: the ring buffers were full"),
    ("missed_samples", "{} samples are missing: the kernel skipped the program that takes them"),
    ("throttled", "the kernel throttled the events {} times: some of the time has no samples"),
    ("lost_sideband", "{} notices of new processes and mappings were lost: some names are missing"),
    ("unresolved_stacks", "{} stacks were lost: their samples count, without frames"),
)
# Stacks that end so have all the frames that were asked for.
_COMPLETE_ENDS = frozenset({"entry", "kernel_thread", "not_asked"})


def loss_notes(recording: Recording) -> tuple[str, ...]:
    """A printable sentence for each loss and warning in ``meta.json``; empty when there is nothing to say."""
    return tuple(map(printable, _notes(recording)))


def incomplete_note(ends: Iterable[StackEnd], total_weight: int) -> str | None:
    """A sentence on the share of stacks that do not reach the thread's entry; None when all do.

    Args:
        ends: How the stacks ended, heaviest first.
        total_weight: Weight of all stacks, in the unit of ``ends``.
    """
    incomplete = [
        (end.end, end.weight / total_weight) for end in ends if end.end not in _COMPLETE_ENDS and end.weight
    ]
    if not incomplete:
        return None
    share = sum(part for _, part in incomplete)
    reasons = ", ".join(
        f"{printable(end).replace('_', ' ')} {format_percent(part)}" for end, part in incomplete
    )
    return f"the stacks of {format_percent(share)} do not reach the thread's entry: {reasons}"


def _notes(recording: Recording) -> Iterator[str]:
    losses = recording.losses
    for name, sentence in _LOSSES:
        count = losses.get(name)
        if isinstance(count, int) and count > 0:
            yield sentence.format(format_count(count))
    before, after = losses.get("max_sample_rate_before"), losses.get("max_sample_rate_after")
    if isinstance(before, int) and isinstance(after, int) and after < before:
        yield f"the kernel lowered the highest sampling rate from {before} to {after} Hz while it recorded"
    if recording.meta.get("recovered"):
        yield "the capture was killed and recovered: its end may be missing"
    yield from map(str, recording.meta.get("warnings") or [])
