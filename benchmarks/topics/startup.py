"""How soon sberf is there: ``sberf --help``, and the first sample of ``sberf record -a``.

``--help``: the whole process.  First sample: from just before the process is made to the time stamp of
the first sample (both CLOCK_MONOTONIC), at 99 Hz while one process keeps a CPU busy; perf the same with
-k CLOCK_MONOTONIC. Then again while 2000 sleeping processes are alive.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from harness.loads import FullLoad, sleepers
from harness.recorders import SBERF, Perf, Recorder, Sberf
from harness.results import Result, Setting, below

HELP_LIMIT_MS, FIRST_LIMIT_MS, CROWDED_LIMIT_MS = 100, 400, 1500
CROWD = 2000


def measure(setting: Setting) -> Iterator[Result]:
    """--help, and the first sample alone and in a crowd."""
    yield below("sberf --help", "ms", [_help_ms() for _ in range(4 * setting.rounds)], HELP_LIMIT_MS)
    with setting.directory() as directory, FullLoad(directory, cpus=1) as load, load.background():
        yield _first_samples(setting, "start to first sample", FIRST_LIMIT_MS)
        with sleepers(CROWD):
            yield _first_samples(setting, f"the same with {CROWD} processes", CROWDED_LIMIT_MS)


def _help_ms() -> float:
    started = time.monotonic()
    subprocess.run([*SBERF, "--help"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return 1000 * (time.monotonic() - started)


def _first_samples(setting: Setting, what: str, limit_ms: float) -> Result:
    times: dict[type[Recorder], list[float]] = {Sberf: [], Perf: []}
    for _ in range(setting.rounds):
        with setting.directory() as directory:
            sberf = Sberf(directory, 99, options=("-d", "0.5"))
            sberf.start()
            sberf.wait()
            perf = Perf(directory, 99, at_once=True)
            perf.start()
            time.sleep(limit_ms / 1000 + 1)
            perf.end()
            for recorder in (sberf, perf):
                times[type(recorder)].append((recorder.first_sample_ns() - recorder.spawned_ns) / 1e6)
    return below(what, "ms", times[Sberf], limit_ms, perf=times[Perf])
