"""How much longer a fixed amount of work takes while all CPUs are sampled at 10 kHz.

Each round does the work without a recorder, under ``sberf record -a -F 10000`` and under ``perf record -a
-g -F 10000`` (event cpu-clock for both), in an order that rotates from round to round.  The recorders are
started before the work and ended after it, so that only recording is charged.  The figure is the median over
the rounds of (time with) / (time without, in the same round) - 1.  Loads: busy processes of known structure
on all CPUs, a gcc build, and pgbench against PostgreSQL.

Beside the elapsed time stands the CPU time of the work's processes: the handlers of the samples run on it,
and other processes on the machine hardly disturb it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from harness.loads import LOADS, Load, LoadMissing
from harness.recorders import Perf, Recorder, Sberf
from harness.results import Result, Setting

FREQUENCY_HZ = 10_000
_RECORDERS: tuple[type[Recorder] | None, ...] = (None, Sberf, Perf)


@dataclass(frozen=True)
class _Cost:
    elapsed_s: float
    cpu_s: float


def measure(setting: Setting) -> Iterator[Result]:
    """Elapsed time and CPU time for each load."""
    for kind in LOADS:
        with setting.directory() as directory:
            try:
                with kind(directory, scale=setting.seconds(1.0, 0.25)) as load:
                    yield from _measure_load(setting, load)
            except LoadMissing as missing:
                print(f"left out {kind.name}: {missing}", file=sys.stderr)


def _measure_load(setting: Setting, load: Load) -> Iterator[Result]:
    load.run()  # fills the caches
    costs: dict[type[Recorder] | None, list[_Cost]] = {kind: [] for kind in _RECORDERS}
    for number in range(setting.rounds):
        turn = number % len(_RECORDERS)
        for kind in (*_RECORDERS[turn:], *_RECORDERS[:turn]):
            costs[kind].append(_cost(setting, load, kind))
    for what, of in (
        (f"slow-down at 10 kHz, {load.name}", "elapsed_s"),
        (f"the same in CPU time, {load.name}", "cpu_s"),
    ):
        alone, sberf, perf = ([getattr(cost, of) for cost in costs[kind]] for kind in _RECORDERS)
        yield _result(what, alone, sberf, perf)


def _cost(setting: Setting, load: Load, kind: type[Recorder] | None) -> _Cost:
    if kind is None:
        return _run(load)
    with setting.directory() as directory, kind(directory, FREQUENCY_HZ):
        return _run(load)


def _run(load: Load) -> _Cost:
    before_s = load.cpu_s()
    elapsed_s = load.run()
    return _Cost(elapsed_s, load.cpu_s() - before_s)  # the recorder has not ended, so it is not in there


def _result(what: str, alone: list[float], sberf: list[float], perf: list[float]) -> Result:
    slower, perf_slower = _slow_down(sberf, alone), _slow_down(perf, alone)
    middle = statistics.median(alone)
    return Result(
        what,
        "%",
        slower,
        perf=perf_slower,
        target="<= perf",
        ok=slower <= perf_slower,
        note=f"alone {middle:.2f} s, standard deviation {100 * statistics.pstdev(alone) / middle:.1f} %",
    )


def _slow_down(times: list[float], alone: list[float]) -> float:
    return 100 * statistics.median(a / b - 1 for a, b in zip(times, alone, strict=True))
