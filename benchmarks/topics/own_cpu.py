"""The recorder's own CPU time while it records, at 10 kHz and at 99 Hz.

Of both recorders the process's CPU clock (user and system, all threads) is read at the begin and the end
of a window that lies inside the recording: what they need to start, to end and to write the recording is
left out.  The load runs on all CPUs meanwhile; sberf and perf take turns.  In percent of one CPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from harness.loads import LOADS, Load
from harness.recorders import Perf, Recorder, Sberf
from harness.results import Result, Setting, spread

LIMIT_99_HZ_PERCENT = 0.3
_SETTLE_S = 1.0


def measure(setting: Setting) -> Iterator[Result]:
    """One result a load and frequency."""
    for kind in LOADS:
        with setting.directory() as directory, kind(directory) as load:
            for frequency_hz in (10_000, 99):
                yield _measure(setting, load, frequency_hz)


def _measure(setting: Setting, load: Load, frequency_hz: int) -> Result:
    shares: dict[type[Recorder], list[float]] = {Sberf: [], Perf: []}
    window_s = setting.seconds(10, 3)
    for number in range(setting.rounds):
        for recorder in (Sberf, Perf) if number % 2 else (Perf, Sberf):
            with (
                setting.directory() as directory,
                load.background(),
                recorder(directory, frequency_hz) as running,
            ):
                time.sleep(_SETTLE_S)
                shares[recorder].append(_percent_of_cpu(running, window_s))
    sberf, perf = statistics.median(shares[Sberf]), statistics.median(shares[Perf])
    fast = frequency_hz > 1000
    return Result(
        f"own CPU time at {'10 kHz' if fast else '99 Hz'}, {load.name}",
        "%",
        sberf,
        perf=perf,
        target="<= 1/2 of perf" if fast else f"< {LIMIT_99_HZ_PERCENT} %",
        ok=sberf <= perf / 2 if fast else sberf < LIMIT_99_HZ_PERCENT,
        note=spread(shares[Sberf]),
    )


def _percent_of_cpu(running: Recorder, window_s: float) -> float:
    cpu_ns, started_ns = running.cpu_ns(), time.monotonic_ns()
    time.sleep(window_s)
    return 100 * (running.cpu_ns() - cpu_ns) / (time.monotonic_ns() - started_ns)
