"""All CPUs busy, at ten thousand samples a second, for a minute; and buffers that are too small."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sberf.capture.options import max_sample_rate
from tests.kernel.harness import lost, opened, record, run_sberf
from tests.kernel.processes import Processes
from tests.kernel.workloads import Workloads

FREQUENCY_HZ = 10_000
DURATION_S = 60
END_S = 2.0
CPUS = len(os.sched_getaffinity(0))


def busy_on_every_cpu(workloads: Workloads, processes: Processes) -> None:
    for cpu in os.sched_getaffinity(0):
        busy = processes.start("taskset", "-c", str(cpu), workloads.build("busy"))
        assert busy.line() == "ready"


def test_a_minute_at_ten_kilohertz_loses_nothing(
    workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    busy_on_every_cpu(workloads, processes)
    output = tmp_path / "load.data"
    run = run_sberf("record", "-f", str(FREQUENCY_HZ), "-a", "-d", str(DURATION_S), "-o", output)
    ended_ns = time.monotonic_ns()
    assert run.status == 0, run.err
    recording = opened(output)
    window_s = recording.duration_ns / 1e9
    assert DURATION_S <= window_s < DURATION_S + 0.5
    # The load goes on while the recording is finished.  The promise is made for our load alone; what else
    # runs on the machine stretches it.
    end_s = (ended_ns - recording.end_ns) / 1e9
    strangers = max(os.getloadavg()[0] - 1.5 * CPUS, 0.0)
    assert end_s < END_S * (1 + strangers / CPUS), f"ended {end_s:.1f} s after its duration"
    # Every CPU is busy throughout, so each tick is a sample, or the kernel capped the rate and we say so.
    cap = max_sample_rate()
    assert cap is None or cap >= FREQUENCY_HZ
    for cpu, samples in recording.rows("SELECT cpu, count(*) FROM samples GROUP BY cpu"):
        assert samples > 0.97 * FREQUENCY_HZ * window_s, f"CPU {cpu}: {samples} samples; {run.err}"
        assert samples < 1.01 * FREQUENCY_HZ * window_s


def test_a_buffer_that_is_too_small_loses_and_says_so(
    workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    busy_on_every_cpu(workloads, processes)
    output = tmp_path / "small.data"
    run = run_sberf("record", "-F", "20000", "-a", "-d", "3", "--buffer", "4K", "-o", output)
    recording = opened(output, lossless=False)
    dropped = lost(recording)["dropped_records"]
    assert dropped > 0
    assert sum(recording.meta["losses"]["dropped_by_cpu"]) == dropped
    assert f"lost {dropped:,} records" in run.err
    assert "--buffer" in run.err
    report = run_sberf("report", "-i", output)
    assert f"{dropped:,}" in report.out + report.err
    # What was kept and what was lost together are the ticks.
    (samples,) = recording.rows("SELECT count(*) FROM samples")[0]
    assert samples > 0


def test_the_default_buffer_holds_what_the_same_load_makes(
    workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    busy_on_every_cpu(workloads, processes)
    recording = record(tmp_path / "enough.data", "-F", "20000", "-a", "-d", "3")
    assert lost(recording) == {}
