"""The look for leaks after each test finds what a capture holds while it runs."""

from __future__ import annotations

from pathlib import Path

from tests.kernel import leaks
from tests.kernel.harness import Live
from tests.kernel.processes import Processes


def test_a_running_capture_is_found(processes: Processes, tmp_path: Path) -> None:
    before = leaks.find(tmp_path)
    live = processes.add(Live(tmp_path / "running.data", "-a"))
    live.wait_for_samples()
    found = leaks.find(tmp_path) - before
    names = {(left.kind, left.name) for left in found}
    assert {("BPF program", "on_sample_0"), ("BPF program", "on_exec")} <= names
    assert {name for kind, name in names if kind == "BPF map"} == set(leaks.MAPS)
    assert ("BPF link", "on_exec") in names
    assert ("process", live.pid) in {(left.kind, left.where) for left in found}
    assert [left.name for left in found if left.kind == "directory"] == [f"running.data.spool-{live.pid}"]
    live.finish()
