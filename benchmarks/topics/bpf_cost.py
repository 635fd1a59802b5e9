"""What one sample costs in the kernel: the run time of sberf's BPF programs, nanoseconds a sample.

kernel.bpf_stats_enabled is set for the time of the measurement (and put back); the run times and counts
of the programs come from bpftool, from a window inside a recording at 10 kHz.  The kernel's clock reads
around each run (about 50 ns) are part of the figure.  Not comparable with perf, whose handler has no
such counter; see the slow-down for that.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.loads import LOADS, Load, LoadMissing
from harness.recorders import Sberf
from harness.results import Result, Setting, spread

FREQUENCY_HZ = 10_000
PROGRAMS = "on_sample_"
_STATS_ENABLED = Path("/proc/sys/kernel/bpf_stats_enabled")


def measure(setting: Setting) -> Iterator[Result]:
    """One result a load."""
    with _stats_enabled():
        for kind in LOADS:
            with setting.directory() as directory:
                try:
                    with kind(directory) as load, load.background():
                        yield _measure(setting, load)
                except LoadMissing:
                    continue


def _measure(setting: Setting, load: Load) -> Result:
    costs = []
    for _ in range(setting.rounds):
        with setting.directory() as directory, Sberf(directory, FREQUENCY_HZ):
            before_ns, before = _run_time_ns_and_count()
            time.sleep(setting.seconds(5, 1))
            after_ns, after = _run_time_ns_and_count()
            costs.append((after_ns - before_ns) / max(1, after - before))
    return Result(f"BPF program per sample, {load.name}", "ns", statistics.median(costs), note=spread(costs))


def _run_time_ns_and_count() -> tuple[int, int]:
    text = subprocess.run(["bpftool", "--json", "prog", "show"], capture_output=True, check=True).stdout
    # [{"id":12,"type":"perf_event","name":"on_sample_0",...,"run_time_ns":81234,"run_cnt":51,...}, ...]
    programs = [program for program in json.loads(text) if program.get("name", "").startswith(PROGRAMS)]
    return sum(p.get("run_time_ns", 0) for p in programs), sum(p.get("run_cnt", 0) for p in programs)


@contextmanager
def _stats_enabled() -> Iterator[None]:
    before = _STATS_ENABLED.read_text()
    _STATS_ENABLED.write_text("1")
    try:
        yield
    finally:
        _STATS_ENABLED.write_text(before)
