"""Text for terminals: safe characters, columns that fit, a pager when it is long."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import le

from sberf.units import format_count, format_duration

ELLIPSIS = "…"
_GAP = 2


def printable(text: str) -> str:
    """``text`` with every character that a terminal might obey made visible.

    Control characters (C0, DEL, C1), bidirectional overrides, zero-width characters, exotic spaces and
    lone surrogates become ``\\xNN``, ``\\uNNNN`` or ``\\UNNNNNNNN``.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def base_name(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


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
    """One column of a table.

    Args:
        title: Its title.
        right: Whether its cells, numbers, stand to the right.
        least: The width to which it may be cut; None: it is never cut.
    """

    title: str
    right: bool = False
    least: int | None = None


def column_widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """How wide each column is to be for lines to fit into ``width``: the widest shrinks first."""
    cells = [max(map(display_width, [c.title, *(row[i] for row in rows)])) for i, c in enumerate(columns)]
    if width is None:
        return cells
    excess = sum(cells) + _GAP * (len(cells) - 1) - width
    while excess > 0:
        shrinkable = [i for i, c in enumerate(columns) if c.least is not None and cells[i] > c.least]
        if not shrinkable:
            break
        widest = max(shrinkable, key=lambda i: cells[i])
        narrower = [cells[i] for i in shrinkable if cells[i] < cells[widest]]
        floor = max([columns[widest].least or 0, *narrower])
        step = min(excess, max(1, cells[widest] - floor))
        cells[widest] -= step
        excess -= step
    return cells


Paint = Callable[[str], str]
"""Adds colours to a padded cell, without changing its width on the terminal."""


def layout_lines(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    widths: Sequence[int],
    *,
    paint: Paint | None = None,
) -> Iterator[str]:
    """The lines of a table: the titles, then one line a row.

    Args:
        columns: The columns.
        rows: Cells, already printable.
        widths: The columns' widths, see :func:`column_widths`; cells that are wider are cut if they may be.
        paint: Colours for the cells of rows, or None.
    """
    yield _line(columns, [column.title for column in columns], widths, None)
    sides = zip(columns, widths, strict=True)
    template = (" " * _GAP).join(f"{{:{'>' if column.right else '<'}{width}}}" for column, width in sides)
    for cells in rows:
        if paint is None and _is_simple(cells, widths):
            yield template.format(*cells).rstrip()  # several times faster, for tables with many rows
        else:
            yield _line(columns, cells, widths, paint)


def _is_simple(cells: Sequence[str], widths: Sequence[int]) -> bool:
    """Whether each character takes a column, and nothing has to be cut."""
    return "".join(cells).isascii() and all(map(le, map(len, cells), widths))


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], paint: Paint | None) -> str:
    line = []
    for column, text, width in zip(columns, cells, widths, strict=True):
        cell = shorten(text, width) if column.least is not None else text
        pad = " " * (width - display_width(cell))
        padded = pad + cell if column.right else cell + pad
        line.append(paint(padded) if paint and column.right else padded)
    return (" " * _GAP).join(line).rstrip()


def paint_percent(cell: str) -> str:
    """Colour a padded percentage as perf does: red from 5 %, green from 0.5 %; other cells stay."""
    if not cell.endswith("%"):
        return cell
    percent = float(cell[:-1])
    colour = 31 if percent >= 5 else 32 if percent >= 0.5 else 0
    return f"\x1b[{colour}m{cell}\x1b[m" if colour else cell


def wrapped(text: str, width: int | None, indent: str) -> Iterator[str]:
    """``text`` in lines of at most ``width`` columns; all but the first begin with ``indent``."""
    if width is None or display_width(text) <= width:
        yield text
        return
    import textwrap

    yield from textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def terminal_width() -> int | None:
    """Columns of the terminal on stdout; None when stdout is none: then nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def use_colour() -> bool:
    """Whether stdout is a terminal that wants colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show(lines: Iterable[str]) -> int:
    """Print lines, or pieces of several lines, to stdout; with a pager on a terminal that is too small.

    The pager is ``$PAGER``, else ``less -FRSX``; an empty ``PAGER`` or ``cat`` means none.

    Returns:
        The number of lines that were printed.
    """
    counted = _Counted(lines)
    if not sys.stdout.isatty():
        _write(counted)
        return counted.lines
    height = shutil.get_terminal_size().lines
    head, rows = [], 0
    while rows < height and (line := next(counted, None)) is not None:
        head.append(line)
        rows += 1 + line.count("\n")
    pager = os.environ.get("PAGER", "less")
    if rows < height or pager in ("", "cat") or not _page(pager, head, counted):
        _write(head)
        _write(counted)
    return counted.lines


class _Counted:
    """An iterator over lines that counts them."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.lines = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.lines += 1
        return line


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
