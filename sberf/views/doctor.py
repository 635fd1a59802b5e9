"""The diagnosis of a machine, and of a recording, as text and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from sberf.analysis.doctor import Diagnosis, Finding, State
from sberf.recording.check import Problem
from sberf.views.json import to_json
from sberf.views.text import printable

_COLOURS = {State.OK: "32", State.LIMITED: "33", State.MISSING: "31", State.UNKNOWN: "33"}
_STATE_WIDTH = 9
_NAME_WIDTH = 24
_INDENT = "  "
_MAX_WIDTH = 100


def doctor_lines(diagnosis: Diagnosis, width: int | None = None, colour: bool = False) -> Iterator[str]:
    """The lines: a verdict, then each finding with what its lack costs and how to get it.

    Args:
        diagnosis: What was found.
        width: Columns of the terminal, None for 80.
        colour: Whether to use terminal colours.
    """
    width = min(width or 80, _MAX_WIDTH)
    for group, findings in groupby(diagnosis.findings, key=lambda finding: finding.group):
        yield _paint(group[0].upper() + group[1:], "1", colour)
        for finding in findings:
            yield from _finding_lines(finding, width, colour)
        yield ""
    yield from textwrap.wrap(_verdict(diagnosis), width)


def doctor_json(diagnosis: Diagnosis) -> str:
    """The same as JSON, its fields described in docs/doctor.md."""
    return to_json(diagnosis)


def recording_lines(path: str, problems: Sequence[Problem], warnings: Sequence[str] = ()) -> Iterator[str]:
    """What the capture warned of and what is wrong with the recording at ``path``, a line each."""
    for warning in warnings:
        yield printable(f"warning: {warning}")
    for problem in problems:
        yield printable(str(problem))
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "no problems"
    yield f"{printable(path)}: {count} found"


def recording_json(path: str, problems: Sequence[Problem], warnings: Sequence[str] = ()) -> str:
    """The same as JSON."""
    return to_json({"recording": path, "sound": not problems, "warnings": warnings, "problems": problems})


def _verdict(diagnosis: Diagnosis) -> str:
    where = f"on Linux {diagnosis.kernel} ({diagnosis.arch}) as {printable(diagnosis.user)}"
    if diagnosis.works:
        return f"Recording works {where}."
    stopping = [f.name for f in diagnosis.findings if f.required and f.state is not State.OK]
    return f"Recording does not work {where}: see {', '.join(stopping)}."


def _finding_lines(finding: Finding, width: int, colour: bool) -> Iterator[str]:
    state = f"{_INDENT}{finding.state:<{_STATE_WIDTH}}"
    label = f"{state}{finding.name:<{_NAME_WIDTH}}"
    first, *more = _wrapped(label, finding.detail, width)
    yield _paint(state, _COLOURS[finding.state], colour) + first[len(state) :]
    yield from more
    for title, note in ("costs", finding.cost), ("enable", finding.enable):
        if note:
            yield from _wrapped(f"{' ' * len(state)}{title:<8}", note, width)


def _wrapped(label: str, text: str, width: int) -> list[str]:
    """A labelled text on as many lines as it takes; what can be typed is never broken at a hyphen."""
    return textwrap.wrap(
        printable(text),
        width,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_on_hyphens=False,
        break_long_words=False,
    ) or [label.rstrip()]


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
