"""What a topic measured, and the table and JSON of it."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

ROUNDS = 5


@dataclass(frozen=True)
class Result:
    """One figure, beside perf's where perf has one.

    Args:
        what: What was measured.
        unit: Of both figures.
        sberf: The figure, the median where there were several rounds.
        perf: perf's, measured in the same run; None: perf has no such thing.
        target: What is to be reached, in words; empty: none.
        ok: Was it reached?  None: there is no target.
        note: Spread, number of samples and the like.
    """

    what: str
    unit: str
    sberf: float
    perf: float | None = None
    target: str = ""
    ok: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """sberf's figure as a multiple of perf's."""
        return self.sberf / self.perf if self.perf else None


@dataclass(frozen=True)
class Setting:
    """How thorough to be, and where to write.

    Args:
        scratch: A directory for this run's files, removed at its end.
        quick: Fewer rounds and shorter recordings: a smoke test, no figures to publish.
        long: The memory of ten minutes instead of two.
    """

    scratch: Path
    quick: bool = False
    long: bool = False

    @property
    def rounds(self) -> int:
        """Of whatever is measured several times."""
        return 2 if self.quick else ROUNDS

    def seconds(self, normal: float, quick: float) -> float:
        """A duration."""
        return quick if self.quick else normal

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """A new directory below :attr:`scratch`; removed at the end, since recordings are large."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            yield Path(name)


def below(what: str, unit: str, values: Sequence[float], limit: float, perf: Sequence[float] = ()) -> Result:
    """A result whose median must not exceed ``limit``, with its spread as the note."""
    value = statistics.median(values)
    return Result(
        what,
        unit,
        value,
        perf=statistics.median(perf) if perf else None,
        target=f"< {limit:g} {unit}",
        ok=value < limit,
        note=spread(values),
    )


def spread(values: Sequence[float]) -> str:
    """``min..max of N``."""
    return f"{min(values):.3g}..{max(values):.3g} of {len(values)}"


_COLUMNS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("what", lambda r: r.what),
    ("target", lambda r: r.target),
    ("sberf", lambda r: f"{_number(r.sberf)} {r.unit}"),
    ("perf", lambda r: "" if r.perf is None else f"{_number(r.perf)} {r.unit}"),
    ("ratio", lambda r: "" if r.ratio is None else f"{r.ratio:.2f}"),
    ("", lambda r: {True: "ok", False: "NOT OK", None: ""}[r.ok]),
    ("note", lambda r: r.note),
)


def table(results: Sequence[Result]) -> str:
    """One line a result, as a Markdown table that is also readable as it is."""
    rows = [[title for title, _ in _COLUMNS]]
    rows += [[cell(result) for _, cell in _COLUMNS] for result in results]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * max(width, 3) for width in widths) + " |")
    return "\n".join(lines)


def as_json(results: Sequence[Result], about: dict[str, object]) -> str:
    """The same for programs."""
    rows = [{**asdict(result), "ratio": result.ratio} for result in results]
    return json.dumps({"about": about, "results": rows}, indent=2)


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
