"""Programs whose profile is known before it is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.harness import SBERF, environment, opened, read_samples, record, share
from tests.kernel.processes import Processes
from tests.kernel.workloads import Workloads

# What lies below _start in kernel mode; above it nothing.
CHAIN = ("c", "b", "a", "main", "_start")


def test_shares_of_a_split_program(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    """Both frequencies at once, each on a process of its own: the CPU time is what counts."""
    split = workloads.build("split")
    allowed = {99: 0.03, 10_000: 0.005}
    runs = {}
    for frequency in allowed:
        command = ["record", "-F", str(frequency), "-o", tmp_path / f"{frequency}.data", "--", split, "10000"]
        runs[frequency] = processes.start(*SBERF, *command, env=environment())
    for frequency, run in runs.items():
        assert run.wait() == 0
        truth = {name: int(ns) for name, _, ns in (word.partition("=") for word in run.output().split())}
        samples = read_samples(opened(tmp_path / f"{frequency}.data"))
        in_either = [sample for sample in samples if any(map(sample.has, truth))]
        assert len(in_either) > 0.98 * len(samples)
        for function, cpu_ns in truth.items():
            measured = share(in_either, lambda sample, name=function: sample.has(name))
            assert measured == pytest.approx(cpu_ns / sum(truth.values()), abs=allowed[frequency])
        # One sample stands for its period: together they are the CPU time.
        assert sum(sample.weight for sample in samples) == pytest.approx(sum(truth.values()), rel=0.02)


def test_a_call_chain_is_that_chain(workloads: Workloads, tmp_path: Path) -> None:
    recording = record(tmp_path / "chain.data", "-F", "2000", "--", workloads.build("chain"), "500")
    computing = [sample for sample in read_samples(recording) if sample.has("c")]
    assert len(computing) > 500
    assert {(sample.user_functions, sample.end) for sample in computing} == {(CHAIN, "entry")}


@pytest.mark.parametrize(
    ("depth", "arguments", "frames", "end"),
    [
        (500, (), 127, "depth_limit"),
        (500, ("--max-depth", "20"), 20, "depth_limit"),
        (500, ("--max-depth", "1024"), 502, "entry"),
        (1022, ("--max-depth", "1024"), 1024, "entry"),
        (5000, ("--max-depth", "1024"), 1024, "depth_limit"),
    ],
)
def test_deep_recursion(
    workloads: Workloads, tmp_path: Path, depth: int, arguments: tuple[str, ...], frames: int, end: str
) -> None:
    recursion = workloads.build("recursion")
    recording = record(tmp_path / "deep.data", "-F", "2000", *arguments, "--", recursion, str(depth), "1000")
    deep = [sample for sample in read_samples(recording) if sample.has("descend") and sample.in_user_mode]
    assert len(deep) > 200
    below = ("main", "_start") if end == "entry" else ()
    expected = ("descend",) * (frames - len(below)) + below
    # The very first samples see the recursion on its way down, or carry a copy of 28 KiB of the stack.
    assert share(deep, lambda sample: (sample.functions, sample.end) == (expected, end)) > 0.99
    assert max(len(sample.frames) for sample in deep) == frames
