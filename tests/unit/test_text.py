"""Safe characters, columns that fit, a pager when it is long."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from sberf.views.text import (
    Column,
    column_widths,
    display_width,
    format_weight,
    layout_lines,
    paint_percent,
    printable,
    printable_lines,
    shorten,
    wrapped,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text <b>&'\"", "plain text <b>&'\""),
        ("日本語 ünï", "日本語 ünï"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\r", r"a\x0ab\x09c\x0d"),
        ("\x7f\x80\x9b31m", r"\x7f\x80\x9b31m"),
        ("a\u202eb\u2066c\u200fd", r"a\u202eb\u2066c\u200fd"),
        ("a\u200bb\ufeffc\u2028d", r"a\u200bb\ufeffc\u2028d"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
        ("\x00", r"\x00"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_no_control_character_passes() -> None:
    everything = "".join(map(chr, range(0x3000)))
    assert printable(everything).isprintable()


def test_line_ends_of_our_own_stay() -> None:
    assert printable_lines("a\nb\x1b") == "a\nb\\x1b"


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("", 0)])
def test_display_width(text: str, width: int) -> None:
    assert display_width(text) == width


@pytest.mark.parametrize("width", range(1, 12))
@pytest.mark.parametrize("text", ["abcdefghij", "日本語関数", "a日b本c"])
def test_shorten(text: str, width: int) -> None:
    short = shorten(text, width)
    assert display_width(short) <= width
    assert short == text or short.endswith("…")
    assert shorten(text, None) == text


COLUMNS = [Column("N", right=True), Column("Module", least=8), Column("Function", least=10)]


@pytest.mark.parametrize("width", [40, 60, 80, 140])
@pytest.mark.parametrize("name", ["f", "a_very_long_function_name" * 5, "関数" * 40])
def test_tables_fit(width: int, name: str) -> None:
    rows = [["1", "libsomething.so.6" * 3, name], ["1234", "x", "y"]]
    lines = list(layout_lines(COLUMNS, rows, column_widths(COLUMNS, rows, width)))
    assert len(lines) == 3
    assert max(map(display_width, lines)) <= width


def test_tables_are_not_cut_without_a_width() -> None:
    rows = [["1", "m" * 300, "関" * 300], ["22", "n", "g"]]
    lines = list(layout_lines(COLUMNS, rows, column_widths(COLUMNS, rows, None)))
    assert lines[1] == f" 1  {'m' * 300}  {'関' * 300}"
    assert lines[2] == f"22  n{' ' * 299}  g"


def test_columns_line_up_with_wide_characters() -> None:
    rows = [["1", "日本", "f"], ["2", "abcd", "g"]]
    lines = list(layout_lines(COLUMNS, rows, column_widths(COLUMNS, rows, None)))
    assert lines[1:] == ["1  日本    f", "2  abcd    g"]


def test_rows_wider_than_measured_are_cut_or_overflow() -> None:
    [_, line] = layout_lines(COLUMNS, [["12345", "a" * 20, "b" * 20]], [1, 8, 10])
    assert line == f"12345  {'a' * 7}…  {'b' * 9}…"


def test_colours() -> None:
    assert paint_percent(" 5.00%") == "\x1b[31m 5.00%\x1b[m"
    assert paint_percent(" 0.50%") == "\x1b[32m 0.50%\x1b[m"
    assert paint_percent(" 0.49%") == " 0.49%"
    assert paint_percent("12") == "12"


def test_weights() -> None:
    assert format_weight(1_500_000, "ns") == "1.50 ms"
    assert format_weight(1_500_000, "count") == "1,500,000"


def test_wrapped() -> None:
    assert list(wrapped("# one two three", 9, "#   ")) == ["# one two", "#   three"]
    assert list(wrapped("# one two three", None, "#   ")) == ["# one two three"]


SHOW = "from sberf.views.text import show; show(f'line {i}' for i in range(100))"


def on_terminal(code: str, **environment: str) -> str:
    """Run ``code`` with stdout on a terminal of 24 lines; return what it shows."""
    master, slave = pty.openpty()
    env = {**os.environ, "LINES": "24", "COLUMNS": "80", **environment}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=slave, stdin=subprocess.DEVNULL, env=env)
    os.close(slave)
    shown = bytearray()
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:  # EIO: the other side has closed
        pass
    os.close(master)
    assert process.wait() == 0
    return shown.decode().replace("\r\n", "\n")


def test_long_output_is_paged(tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho paged $LESS\ncat\n")
    pager.chmod(0o755)
    shown = on_terminal(SHOW, PAGER=str(pager), LESS="")
    assert shown.startswith("paged")
    assert shown.endswith("line 99\n")


def test_short_output_is_not_paged() -> None:
    assert on_terminal("from sberf.views.text import show; show(['a', 'b'])", PAGER="false") == "a\nb\n"


@pytest.mark.parametrize("pager", ["", "cat", "no-such-pager"])
def test_no_pager(pager: str) -> None:
    assert on_terminal(SHOW, PAGER=pager) == "".join(f"line {i}\n" for i in range(100))


def test_a_pager_that_leaves_early() -> None:
    code = "from sberf.views.text import show; show('x' * 1000 for _ in range(10**5))"
    assert on_terminal(code, PAGER="head -1") == "x" * 1000 + "\n"


def test_piped_output_is_not_paged() -> None:
    env = {**os.environ, "PAGER": "false"}
    done = subprocess.run([sys.executable, "-c", SHOW], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 100
