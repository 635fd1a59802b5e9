"""From the end of recording to the finished, symbolised recording, for one million samples.

``sberf record -a -F 10000`` under a load on all CPUs, as long as a million samples take; then the load ends,
and the recorder gets its interrupt.  The end of recording is the end of the recording's window (meta.json,
CLOCK_MONOTONIC), the recording is finished when the process has ended.  perf: from the interrupt to the end
of ``perf record``, which symbolises nothing, plus one ``perf report``, which does.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator

from harness.loads import Build, FullLoad, Load
from harness.recorders import PERF, Perf, Recorder, Sberf
from harness.results import Result, Setting, spread

SAMPLES = 1_000_000
LIMIT_S = 2.0
FREQUENCY_HZ, QUICK_FREQUENCY_HZ = 10_000, 40_000


def measure(setting: Setting) -> Iterator[Result]:
    """One result a load."""
    for kind in (FullLoad, Build):
        with setting.directory() as directory, kind(directory) as load:
            yield _measure(setting, load)


def _measure(setting: Setting, load: Load) -> Result:
    took, cpu, counts = [], [], []
    for _ in range(1 if setting.quick else 3):
        with setting.directory() as directory:
            recorder = Sberf(directory, _frequency_hz(setting))
            cpu.append(_record(setting, load, recorder))
            took.append((recorder.ended_ns - recorder.meta["window"]["end_ns"]) / 1e9)
            counts.append(recorder.sample_count())
    return Result(
        f"end to finished recording, {load.name}",
        "s",
        statistics.median(took),
        perf=_perf_seconds(setting, load),
        target=f"< {LIMIT_S:g} s for 1 M samples",
        ok=statistics.median(took) < LIMIT_S,
        note=f"{spread(took)}, {statistics.median(cpu):.2f} s of CPU, {min(counts) / 1e6:.2f} M samples",
    )


def _record(setting: Setting, load: Load, recorder: Recorder) -> float:
    """Record about a million samples; return the CPU seconds that the recorder took to finish."""
    # The recorder needs some of the CPUs itself, and a build waits now and then.
    seconds = 1.1 * SAMPLES / _frequency_hz(setting) / (os.cpu_count() or 1)
    with recorder:
        with load.background():
            time.sleep(seconds)
        recorded_s, ended_children_s = recorder.cpu_ns() / 1e9, _children_cpu_s()
        recorder.end()
    return _children_cpu_s() - ended_children_s - recorded_s


def _perf_seconds(setting: Setting, load: Load) -> float | None:
    if setting.quick:
        return None
    with setting.directory() as directory:
        recorder = Perf(directory, FREQUENCY_HZ)
        _record(setting, load, recorder)
        ended_s = (recorder.ended_ns - recorder.asked_to_end_ns) / 1e9
        started = time.monotonic()
        report = [*PERF, "report", "--stdio", "-i", str(recorder.output)]
        if subprocess.run(report, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
            return None  # perf 6.1 aborts on unusual build-ids
        return ended_s + time.monotonic() - started


def _frequency_hz(setting: Setting) -> int:
    return QUICK_FREQUENCY_HZ if setting.quick else FREQUENCY_HZ


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
