"""Memory of sberf while it records at 10 kHz under full load with many short processes.

A busy process on each CPU, and beside them a gcc build without end.  Resident (RSS) and proportional
(PSS) size of the recording process from /proc/PID/smaps_rollup, early and late in one recording: after
20 s and 120 s, with --long after 1 and 10 minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.loads import Build, FullLoad
from harness.recorders import Perf, Sberf
from harness.results import Result, Setting

LIMIT_MB = 150
GROWTH = 0.1  # "the same": within a tenth
FREQUENCY_HZ = 10_000


def measure(setting: Setting) -> Iterator[Result]:
    """Early, late, and the growth between them."""
    early_s, late_s = (60.0, 600.0) if setting.long else (setting.seconds(20, 4), setting.seconds(120, 10))
    with setting.directory() as directory, _load(directory):
        sberf = _memory_mb(Sberf(directory, FREQUENCY_HZ), (early_s, late_s))
        perf = _memory_mb(Perf(directory, FREQUENCY_HZ), (early_s,))
    for at_s, value, other in ((early_s, sberf[0], perf[0]), (late_s, sberf[1], None)):
        yield Result(
            f"memory after {at_s:g} s at 10 kHz with churn",
            "MB",
            value[0],
            perf=other[0] if other else None,
            target=f"< {LIMIT_MB} MB",
            ok=value[0] < LIMIT_MB,
            note=f"RSS; PSS {value[1]:.1f} MB",
        )
    growth = sberf[1][0] - sberf[0][0]
    yield Result(
        f"memory growth from {early_s:g} s to {late_s:g} s",
        "MB",
        growth,
        target="none",
        ok=growth < GROWTH * sberf[0][0],
        note=f"ok: less than {GROWTH:.0%}",
    )


@contextmanager
def _load(directory: Path) -> Iterator[None]:
    full, build = FullLoad(directory), Build(directory)
    with full, build, full.background(), build.background():
        yield


def _memory_mb(recorder: Sberf | Perf, at_s: tuple[float, ...]) -> list[tuple[float, float]]:
    """RSS and PSS so long after the begin of the recording."""
    sizes = []
    with recorder:
        started = time.monotonic()
        for moment_s in at_s:
            time.sleep(max(0.0, started + moment_s - time.monotonic()))
            memory = recorder.memory_bytes()
            sizes.append((memory["Rss"] / 1e6, memory["Pss"] / 1e6))
    return sizes
