"""Text for terminals: safe characters, columns that fit, a pager when it is long."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sberf.units import format_count, format_duration

ELLIPSIS = "…"
_MIN_COLUMN = 8
_GAP = 2


def printable(text: str) -> str:
    """``text`` with every character that a terminal might obey made visible.

    Control characters (C0, DEL, C1), bidirectional overrides, zero-width characters, exotic spaces and
    lone surrogates become ``\\xNN``, ``\\uNNNN`` or ``\\UNNNNNNNN``.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def printable_lines(text: str) -> str:
    """The same for text of our own that may have several lines: line ends stay."""
    return "\n".join(map(printable, text.split("\n")))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def display_width(text: str) -> int:
    """Columns that printable ``text`` takes on a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int | None) -> str:
    """``text`` cut to ``width`` columns, with an ellipsis where something is missing; None: not cut."""
    if width is None or display_width(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += _character_width(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + ELLIPSIS


def format_weight(weight: float, unit: str) -> str:
    """A weight for people: a duration for ``ns``, else a count."""
    return format_duration(weight) if unit == "ns" else format_count(round(weight))


@dataclass(frozen=True)
class Column:
    """One column of a table: its title, whether numbers stand to the right, and whether it may be cut."""

    title: str
    right: bool = False
    flexible: bool = False


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """The lines of a table: a header, then one line a row.

    Args:
        columns: The columns; the last one is never padded.
        rows: Cells, already printable.
        width: Columns that the lines may take, None for as many as they need.
    """
    yield from layout_lines(columns, rows, column_widths(columns, rows, width))


def column_widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """How wide each column is to be for lines to fit into ``width``: flexible ones shrink, widest first."""
    cells = [max(map(display_width, [c.title, *(row[i] for row in rows)])) for i, c in enumerate(columns)]
    if width is None:
        return cells
    excess = sum(cells) + _GAP * (len(cells) - 1) - width
    while excess > 0:
        shrinkable = [i for i, c in enumerate(columns) if c.flexible and cells[i] > _MIN_COLUMN]
        if not shrinkable:
            break
        widest = max(shrinkable, key=lambda i: cells[i])
        others = [cells[i] for i in shrinkable if cells[i] < cells[widest]]
        step = min(excess, max(1, cells[widest] - max(others, default=_MIN_COLUMN)))
        cells[widest] -= step
        excess -= step
    return cells


def layout_lines(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], widths: Sequence[int], header: bool = True
) -> Iterator[str]:
    """The lines of a table whose column widths are known; cells that are too wide are cut if flexible."""
    titles = [column.title for column in columns]
    last = len(columns) - 1
    for row in ([titles] if header else []), rows:
        for cells in row:
            line = []
            for i, column in enumerate(columns):
                cell = shorten(cells[i], widths[i]) if column.flexible else cells[i]
                pad = " " * (widths[i] - display_width(cell))
                line.append(pad + cell if column.right else cell if i == last else cell + pad)
            yield (" " * _GAP).join(line).rstrip()


def terminal_width() -> int | None:
    """Columns of the terminal on stdout; None when stdout is none: then nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def use_colour() -> bool:
    """Whether stdout is a terminal that wants colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show(lines: Iterable[str]) -> None:
    """Print lines to stdout, through a pager when it is a terminal on which they do not fit.

    The pager is ``$PAGER``, else ``less -FRSX``; an empty ``PAGER`` or ``cat`` means none.
    """
    if not sys.stdout.isatty():
        _write(lines)
        return
    height = shutil.get_terminal_size().lines
    iterator = iter(lines)
    head = [line for line, _ in zip(iterator, range(height), strict=False)]
    pager = os.environ.get("PAGER", "less")
    if len(head) < height or pager in ("", "cat") or not _page(pager, head, iterator):
        _write(head)
        _write(iterator)


def _write(lines: Iterable[str]) -> None:
    write = sys.stdout.write
    for line in lines:
        write(line + "\n")


def _page(pager: str, head: list[str], rest: Iterator[str]) -> bool:
    """Show the lines in the pager; False when there is no such program."""
    if shutil.which(pager.split()[0]) is None:
        return False
    sys.stdout.flush()
    environment = {"LESS": "FRSX", **os.environ}
    process = subprocess.Popen(
        pager, shell=True, stdin=subprocess.PIPE, text=True, errors="backslashreplace", env=environment
    )
    assert process.stdin is not None
    try:
        with process.stdin as stdin:
            for part in head, rest:
                for line in part:
                    stdin.write(line + "\n")
    except BrokenPipeError:
        pass  # the reader has seen enough
    while True:
        try:
            process.wait()
            return True
        except KeyboardInterrupt:
            continue  # Ctrl-C belongs to the pager
