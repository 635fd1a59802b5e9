"""Recording from Python."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import sberf
from sberf.analysis import functions
from sberf.errors import TargetError, UsageError
from tests.kernel.harness import names, read_samples
from tests.kernel.processes import Processes
from tests.kernel.workloads import Workloads


def test_record_a_process_for_a_time(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    busy = processes.start(workloads.build("busy"))
    assert busy.line() == "ready"
    recording = sberf.record(pid=busy.pid, freq=999, duration=0.5, output=tmp_path / "api.data")
    assert recording.check() == []
    assert "busy_loop" in names(read_samples(recording))
    assert functions(recording).rows[0].sym == "busy_loop"


def test_record_a_command(workloads: Workloads, tmp_path: Path) -> None:
    recording = sberf.record(
        command=[str(workloads.build("busy")), "1"], freq=99, output=tmp_path / "api.data"
    )
    assert recording.meta["command"]["exit_code"] == 0


def test_a_session_around_a_block(tmp_path: Path) -> None:
    with sberf.session(pid=os.getpid(), freq=2000, output=tmp_path / "self.data") as session:
        sum(i * i for i in range(2_000_000))
        with pytest.raises(UsageError, match="has not ended"):
            _ = session.recording
    samples = read_samples(session.recording)
    assert {sample.pid for sample in samples} == {os.getpid()}
    assert len(samples) > 50


def test_what_would_never_end(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing would end"):
        sberf.record(output=tmp_path / "endless.data")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no process"):
        sberf.record(pid=4194304, duration=1, output=tmp_path / "nobody.data")
    assert list(tmp_path.iterdir()) == []
