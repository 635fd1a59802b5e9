"""``sberf report`` on one million and on fifty million samples: time and peak memory.

The recordings are synthetic (synthetic_recording.py: 50 000 and 100 000 distinct stacks, 20 000
functions), since fifty million real samples take 42 minutes of 2 CPUs.  The time is that of the whole
process, its output goes to /dev/null; the files are in the page cache.  Peak memory is the process's
largest resident size.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from harness.recorders import SBERF
from harness.results import Result, Setting, below

GENERATOR = Path(__file__).resolve().parent.parent / "synthetic_recording.py"
LIMIT_MB = 1000


def measure(setting: Setting) -> Iterator[Result]:
    """Time and memory for both sizes; --quick leaves the large one out."""
    sizes = [(1, 0.5, 50_000)] if setting.quick else [(1, 0.5, 50_000), (50, 5.0, 100_000)]
    with setting.directory() as directory:
        for millions, limit_s, stacks in sizes:
            path = directory / f"{millions}m.data"
            size = ["--samples", str(millions * 10**6), "--stacks", str(stacks)]
            subprocess.run([sys.executable, GENERATOR, path, *size], check=True)
            for options in ([], ["--tree"]):
                yield from _measure(setting, path, millions, limit_s, options)


def _measure(
    setting: Setting, path: Path, millions: int, limit_s: float, options: list[str]
) -> Iterator[Result]:
    command = [*SBERF, "report", "-i", str(path), *options]
    runs = [_run(command) for _ in range(setting.rounds)]
    what = " ".join(["report", *options, f"on {millions} M samples"])
    yield below(what, "s", [seconds for seconds, _ in runs], limit_s)
    peak_mb = statistics.median(peak for _, peak in runs)
    limited = millions == 50
    yield Result(
        f"{what}, peak memory", "MB", peak_mb,
        target=f"< {LIMIT_MB} MB" if limited else "", ok=peak_mb < LIMIT_MB if limited else None,
    )  # fmt: skip


def _run(command: list[str]) -> tuple[float, float]:
    """Seconds, and megabytes at the peak."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds, usage.ru_maxrss * 1024 / 1e6
