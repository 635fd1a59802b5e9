"""Ending a capture in order, and what it says meanwhile and at the end."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.kernel.harness import SBERF, Live, environment, opened
from tests.kernel.processes import Processes, wait_until
from tests.kernel.workloads import Workloads

LINE = (
    r"\r +(?P<elapsed>\d+\.\d) s  (?P<samples>[\d,]+) samples  (?P<processes>\d+) process(es)?  "
    r"(?P<lost>[\d,]+) lost  buffer (?P<fill>\d+)%  (?P<bytes>[\d.]+ ([KMG]i)?B)\x1b\[K"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(
    workloads: Workloads, processes: Processes, tmp_path: Path, number: signal.Signals
) -> None:
    busy = processes.start(workloads.build("busy"))
    live = processes.add(Live(tmp_path / "end.data", "-p", str(busy.pid), "-F", "999"))
    live.wait_for_samples()
    recording = live.finish(number)
    [(last_ns,)] = recording.rows("SELECT max(ts_ns) FROM samples")
    assert last_ns <= recording.end_ns
    assert recording.end_ns - last_ns < 100_000_000
    assert busy.process.poll() is None


def test_a_second_signal_changes_nothing(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    busy = processes.start(workloads.build("busy"))
    live = processes.add(Live(tmp_path / "twice.data", "-p", str(busy.pid), "-F", "999"))
    live.wait_for_samples()
    for _ in range(5):
        live.process.send_signal(signal.SIGINT)
    live.finish()


def test_the_line_on_a_terminal(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    busy = processes.start(workloads.build("busy"))
    live = processes.add(Live(tmp_path / "live.data", "-p", str(busy.pid), "-F", "999"))
    live.wait_for(r"sberf: recording cpu-clock at 999 Hz; Ctrl-C ends it\r?\n")
    live.wait_for_samples()
    live.wait_for(r"\r +[2-9]\.\d s  ")
    recording = live.finish()
    lines = list(re.finditer(LINE, live.screen))
    assert len(lines) >= 4
    times = [float(line["elapsed"]) for line in lines]
    assert times == sorted(times)
    counts = [int(line["samples"].replace(",", "")) for line in lines]
    assert counts == sorted(counts)
    assert {line["processes"] for line in lines[1:]} <= {"0", "1"}
    assert {line["lost"] for line in lines} == {"0"}
    total = recording.meta["rows"]["samples"]
    assert counts[-1] <= total
    assert f"{total:,} samples of 1 process in " in live.screen
    # The line is wiped before the last words.
    assert "\r\x1b[Ksberf: wrote " in live.screen


def test_quiet_where_nobody_looks(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    output = tmp_path / "quiet.data"
    command = [*SBERF, "record", "-o", output, "-d", "1.2", "-F", "999", "--", workloads.build("busy"), "1"]
    with errors.open("wb") as file:
        assert processes.start(*command, stderr=file, env=environment()).wait() == 0
    [line] = errors.read_text().splitlines()
    assert line.startswith(f"sberf: wrote {output} (")
    opened(output)


def test_really_quiet(processes: Processes, tmp_path: Path) -> None:
    live = processes.add(Live(tmp_path / "q.data", "-q", "--", "true"))
    assert live.wait() == 0
    live.opened()
    assert live.screen == ""


def test_it_ends_on_time(processes: Processes, tmp_path: Path) -> None:
    started = time.monotonic()
    live = processes.add(Live(tmp_path / "time.data", "-a", "-d", "1.5"))
    wait_until(lambda: live.process.poll() is not None, "the end")
    recording = live.opened()
    assert 1.5e9 <= recording.duration_ns <= (time.monotonic() - started) * 1e9
    assert "for 1.5 s" in live.screen
