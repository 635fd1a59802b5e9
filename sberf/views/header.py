"""The lines above a report: what was recorded, and what the reader must know about the data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from sberf.analysis.hits import StackEnd
from sberf.analysis.overview import EventOverview, Overview, UnnamedModule
from sberf.analysis.stack_quality import COMPLETE_ENDS
from sberf.units import format_count, format_duration, format_percent
from sberf.views.text import format_weight, printable, wrapped

_SHOWN_MODULES = 4


def header_lines(overview: Overview, width: int | None) -> Iterator[str]:
    """What was recorded, then all that makes the data less than it seems; comments, with a leading ``#``.

    Args:
        overview: What to show.
        width: Columns that the lines may take; None for as many as they need.
    """
    for line in (*_recorded(overview), *shortcomings(overview)):
        yield from _comment(line, width)


def _comment(text: str, width: int | None) -> Iterator[str]:
    yield from wrapped("# " + printable(text), width, "#   ")


def _recorded(overview: Overview) -> Iterator[str]:
    yield shlex.join(overview.command_line)
    where = f"{overview.hostname} (Linux {overview.kernel}, {overview.arch}, {overview.cpus} CPUs)"
    yield f"{format_duration(overview.duration_ns)} on {where}: {format_count(overview.processes)} processes"
    if overview.exit_code:
        yield f"the command's exit status was {overview.exit_code}"


def shortcomings(overview: Overview) -> Iterator[str]:
    """A sentence for all that makes the data less than it seems; not yet made printable."""
    if overview.recovered:
        yield "warning: the capture was killed; sberf recover finished it"
    for loss in overview.losses:
        yield f"lost: {loss.message}" + (f"; {loss.hint}" if loss.hint else "")
    for warning in overview.warnings:
        yield f"warning: {warning}"
    modules = overview.unnamed_modules
    if modules:
        more = f" and {len(modules) - _SHOWN_MODULES} more" if len(modules) > _SHOWN_MODULES else ""
        count = "1 module lacks" if len(modules) == 1 else f"{len(modules)} modules lack"
        yield f"{count} symbols: {', '.join(map(_unnamed, modules[:_SHOWN_MODULES]))}{more}"
        packages = sorted({module.debug_package for module in modules if module.debug_package})
        if packages:
            yield f"hint: install {' '.join(packages)}, or set DEBUGINFOD_URLS; then sberf symbolize"


def _unnamed(module: UnnamedModule) -> str:
    build_id = f", build-id {module.build_id}" if module.build_id and not module.debug_package else ""
    return f"{module.path} ({module.reason}{build_id})"


def event_lines(
    event: EventOverview, weight: int, samples: int, ends: Sequence[StackEnd], width: int | None
) -> Iterator[str]:
    """One event's rate, weight and samples, and which part of its stacks is not whole."""
    rate = f"at {event.frequency_hz:g} Hz" if event.frequency_hz else f"with period {event.period}"
    in_clock_time = event.unit == "ns"
    amount = format_weight(weight, event.unit) + (" of CPU time" if in_clock_time else f" {event.event}")
    part = "" if samples == event.samples else f" of {format_count(event.samples)}"
    yield from _comment(f"{event.event} {rate}: {format_count(samples)}{part} samples, {amount}", width)
    for line in lacking_callers(weight, ends):
        yield from _comment(line, width)


def lacking_callers(weight: int, ends: Sequence[StackEnd]) -> Iterator[str]:
    """A sentence on which part of ``weight`` has stacks that are not whole; none when all are."""
    broken = [end for end in ends if end.end not in COMPLETE_ENDS]
    if broken and weight:
        shares = ", ".join(f"{end.end} {format_percent(end.weight / weight)}" for end in broken)
        part = format_percent(sum(end.weight for end in broken) / weight)
        yield f"{part} lies in stacks that ended early and lack callers: {shares}"
