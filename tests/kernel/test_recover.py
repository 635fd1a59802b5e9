"""kill -9 at any moment: nothing stays attached, and what was spooled is not lost."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.kernel.harness import Live, find_spool, leftovers, names, opened, read_samples, run_sberf
from tests.kernel.processes import Processes, wait_until
from tests.kernel.workloads import Workloads

# A round is at most 0.25 s, and a block is written at least each second after that.
MOST_UNWRITTEN_S = 1.3
MOMENTS_S = [0.0, *map(random.Random(7).uniform, [0.1] * 3, [3.0] * 3)]


def spool_of(output: Path) -> Path:
    spool = find_spool(output)
    assert spool is not None
    return spool


def killed_capture(
    workloads: Workloads, processes: Processes, output: Path, seconds: float
) -> tuple[Path, int]:
    """A capture that is killed after about ``seconds``; its spool, and when it was killed (monotonic ns)."""
    busy = processes.start(workloads.build("busy"))
    assert busy.line() == "ready"
    live = processes.add(Live(output, "-a", "-F", "2000"))
    live.wait_for_samples()
    deadline = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= deadline, "the moment")
    live.process.send_signal(signal.SIGKILL)
    killed_ns = time.monotonic_ns()
    live.wait()
    return spool_of(output), killed_ns


@pytest.mark.parametrize("seconds", MOMENTS_S)
def test_samples_survive_a_kill(
    workloads: Workloads, processes: Processes, tmp_path: Path, seconds: float
) -> None:
    output = tmp_path / "killed.data"
    spool, killed_ns = killed_capture(workloads, processes, output, seconds)
    run = run_sberf("recover", spool)
    assert run.status == 0, run.err
    recording = opened(output, lossless=False)
    assert recording.meta["recovered"] is True
    samples = read_samples(recording)
    if seconds > MOST_UNWRITTEN_S:
        assert samples[-1].ts_ns > killed_ns - MOST_UNWRITTEN_S * 1e9
        assert "busy_loop" in names(samples)
    assert leftovers(output) == []


def test_a_kill_before_the_first_sample(processes: Processes, tmp_path: Path) -> None:
    output = tmp_path / "early.data"
    live = processes.add(Live(output, "-a", "-F", "2000"))
    wait_until(lambda: find_spool(output), "the spool")
    live.process.send_signal(signal.SIGKILL)
    live.wait()
    run = run_sberf("recover", spool_of(output))
    assert run.status == 0, run.err
    assert opened(output, lossless=False).meta["recovered"] is True


def test_a_kill_while_the_recording_is_finished(
    workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    """The spool is whole: nothing is missing, and what was half-written is removed."""
    output = tmp_path / "late.data"
    processes.start(workloads.build("busy"))
    live = processes.add(Live(output, "-a", "-F", "20000"))
    live.wait_for(r"\r +[3-9]\.\d s  ")
    live.process.send_signal(signal.SIGINT)
    spool = spool_of(output)
    wait_until((spool / "footer.json").exists, "the end of the capture")
    live.process.send_signal(signal.SIGKILL)
    assert live.wait() == -signal.SIGKILL
    run = run_sberf("recover", spool)
    assert run.status == 0, run.err
    recording = opened(output)
    assert recording.meta["recovered"] is True
    assert recording.meta["losses"]["dropped_by_cpu"]
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_a_spool_that_is_cut_is_recovered_up_to_the_cut(
    workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    """A copy that lacks the end of its last block has what lies in the blocks before."""
    output, copy = tmp_path / "whole.data", tmp_path / "cut.data"
    spool, _ = killed_capture(workloads, processes, output, 3.5)
    cut = copy.with_name(f"{copy.name}.spool-1")
    shutil.copytree(spool, cut)
    with (cut / "events").open("r+b") as file:
        file.truncate((spool / "events").stat().st_size - 1)
    recordings = []
    for path, place in ((output, spool), (copy, cut)):
        run = run_sberf("recover", place)
        assert run.status == 0, run.err
        recordings.append(opened(path, lossless=False))
    whole, before_the_cut = ([sample.ts_ns for sample in read_samples(r)] for r in recordings)
    assert 0 < len(before_the_cut) < len(whole)
    assert whole[: len(before_the_cut)] == before_the_cut
    warnings = [any("cut off or damaged" in text for text in r.meta["warnings"]) for r in recordings]
    assert warnings == [False, True]


def test_a_running_capture_is_not_recovered(processes: Processes, tmp_path: Path) -> None:
    output = tmp_path / "running.data"
    live = processes.add(Live(output, "-a"))
    live.wait_for_samples()
    run = run_sberf("recover", spool_of(output))
    assert run.status == 1
    assert "still runs" in run.err
    live.finish()


def test_what_is_no_spool(tmp_path: Path) -> None:
    run = run_sberf("recover", tmp_path, "-o", tmp_path / "recovered.data")
    assert run.status == 1
    assert "is no spool" in run.err


def test_a_spool_of_another_version(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    output = tmp_path / "newer.data"
    spool, _ = killed_capture(workloads, processes, output, 0.0)
    header = spool / "header.json"
    content = json.loads(header.read_text())
    header.write_text(json.dumps({**content, "version": 99}))
    run = run_sberf("recover", spool)
    assert run.status == 1
    assert "99" in run.err
    assert not output.exists()
    assert spool.exists()
    shutil.rmtree(spool)
