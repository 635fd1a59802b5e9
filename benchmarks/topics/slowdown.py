"""How much longer a fixed amount of work takes while all CPUs are sampled at 10 kHz.

Each round times the work without a recorder, under ``sberf record -a -F 10000`` and under ``perf record
-a -g -F 10000`` (event cpu-clock for both), in an order that rotates from round to round.  The recorders
are started before the work and ended after it, so that only recording is charged.  The figure is the
median over the rounds of (time with) / (time without, in the same round) - 1.  Loads: busy processes of
known structure on all CPUs, a gcc build, and pgbench against PostgreSQL.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator

from harness.loads import LOADS, Load, LoadMissing
from harness.recorders import Perf, Recorder, Sberf
from harness.results import Result, Setting

FREQUENCY_HZ = 10_000
_RECORDERS: tuple[type[Recorder] | None, ...] = (None, Sberf, Perf)


def measure(setting: Setting) -> Iterator[Result]:
    """One result a load."""
    for kind in LOADS:
        with setting.directory() as directory:
            try:
                with kind(directory, scale=setting.seconds(1.0, 0.25)) as load:
                    yield _measure_load(setting, load)
            except LoadMissing as missing:
                print(f"left out {kind.name}: {missing}", file=sys.stderr)


def _measure_load(setting: Setting, load: Load) -> Result:
    load.run()  # fills the caches
    times: dict[str, list[float]] = {"none": [], "sberf": [], "perf": []}
    for number in range(setting.rounds):
        turn = number % len(_RECORDERS)
        for recorder in (*_RECORDERS[turn:], *_RECORDERS[:turn]):
            times[recorder.name if recorder else "none"].append(_time(setting, load, recorder))
    sberf, perf = (_slow_down(times[name], times["none"]) for name in ("sberf", "perf"))
    middle, noise = statistics.median(times["none"]), statistics.pstdev(times["none"])
    return Result(
        f"slow-down at 10 kHz, {load.name}",
        "%",
        sberf,
        perf=perf,
        target="<= perf",
        ok=sberf <= perf,
        note=f"alone {middle:.2f} s, standard deviation {100 * noise / middle:.1f} %",
    )


def _time(setting: Setting, load: Load, recorder: type[Recorder] | None) -> float:
    if recorder is None:
        return load.run()
    with setting.directory() as directory, recorder(directory, FREQUENCY_HZ):
        return load.run()


def _slow_down(times: list[float], alone: list[float]) -> float:
    return 100 * statistics.median(a / b - 1 for a, b in zip(times, alone, strict=True))
