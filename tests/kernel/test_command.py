"""``sberf record -- COMMAND``: from its first instruction, with its streams and its exit status."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kernel.harness import opened, read_samples, record, run_sberf, share
from tests.kernel.workloads import Workloads


def test_what_runs_before_main_is_seen(workloads: Workloads, tmp_path: Path) -> None:
    run = run_sberf("record", "-F", "2000", "-o", tmp_path / "e.data", "--", workloads.build("early"))
    samples = read_samples(opened(tmp_path / "e.data"))
    assert run.status == 0
    # All of its CPU time, by its own clock, up to the last system calls.
    assert sum(sample.weight for sample in samples) == pytest.approx(int(run.out), rel=0.03)
    assert share(samples, lambda sample: sample.has("before_main")) == pytest.approx(0.75, abs=0.03)


def test_the_first_instruction_is_seen(workloads: Workloads, tmp_path: Path) -> None:
    recording = record(tmp_path / "f.data", "-F", "2000", "--", workloads.build("first_instruction"))
    samples = read_samples(recording)
    assert {sample.functions for sample in samples if sample.in_user_mode} == {("_start",)}
    [(early,)] = recording.rows("SELECT min(s.ts_ns) - max(p.start_ns) FROM samples s, processes p")
    assert 0 <= early < 20_000_000
    assert {sample.comm for sample in samples} == {"first_instructi"}


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_its_exit_status_is_ours(code: int, tmp_path: Path) -> None:
    run = run_sberf("record", "-o", tmp_path / "x.data", "--", "sh", "-c", f"exit {code}")
    assert run.status == code
    recording = opened(tmp_path / "x.data")
    assert recording.meta["command"] == {"argv": ["sh", "-c", f"exit {code}"], "exit_code": code}


def test_its_death_by_signal_is_told_as_a_shell_does(tmp_path: Path) -> None:
    run = run_sberf("record", "-o", tmp_path / "k.data", "--", "sh", "-c", "kill -SEGV $$")
    assert run.status == 128 + signal.SIGSEGV
    assert opened(tmp_path / "k.data").meta["command"]["exit_code"] == -signal.SIGSEGV


def test_its_streams_are_its_own(tmp_path: Path) -> None:
    script = "cat; echo out; echo err >&2"
    run = run_sberf(
        "record", "-o", tmp_path / "s.data", "--", "sh", "-c", script, stdin=None, input=b"\x00in\n"
    )  # fmt: skip
    assert run.out == "\x00in\nout\n"
    err = run.err.splitlines()
    assert err[0] == "err"
    assert all(line.startswith("sberf: ") for line in err[1:])


def test_its_open_files_signals_and_terminal_are_those_it_would_have_without_us(tmp_path: Path) -> None:
    script = "ls /proc/self/fd; grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ps -o pgid=,sid= -p $$ | wc -w"
    command = ["sh", "-c", script]
    alone = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    traced = run_sberf("record", "-o", tmp_path / "i.data", "--", *command)
    assert traced.out == alone.stdout


def test_it_finds_programs_by_path_and_arguments_stay_whole(tmp_path: Path) -> None:
    run = run_sberf("record", "-o", tmp_path / "w.data", "--", "printf", "%s|", "a b", "", "-p", "--", "$x")
    assert run.out == "a b||-p|--|$x|"
    [(cmdline,)] = opened(tmp_path / "w.data").rows("SELECT cmdline FROM processes WHERE comm = 'printf'")
    assert cmdline == "printf '%s|' 'a b' '' -p -- '$x'"


def test_the_delay_leaves_out_the_beginning(workloads: Workloads, tmp_path: Path) -> None:
    """The constructor computes for 300 ms of CPU time, main for 100 ms more."""
    early = workloads.build("early")
    run = run_sberf("record", "-F", "2000", "-D", "100", "-o", tmp_path / "d.data", "--", early)
    assert run.status == 0
    recording = opened(tmp_path / "d.data")
    samples = read_samples(recording)
    [(started_ns,)] = recording.rows("SELECT min(start_ns) FROM processes WHERE comm = 'early'")
    assert min(sample.ts_ns for sample in samples) >= started_ns + 100_000_000
    assert sum(sample.weight for sample in samples) < int(run.out)
    assert any(sample.has("main") for sample in samples)


def test_the_duration_ends_the_command_too(workloads: Workloads, tmp_path: Path) -> None:
    run = run_sberf("record", "-d", "0.5", "-o", tmp_path / "d.data", "--", workloads.build("busy"))
    recording = opened(tmp_path / "d.data")
    assert run.status == 128 + signal.SIGTERM
    assert "got SIGTERM" in run.err
    assert 0.5e9 <= recording.duration_ns < 1.5e9
    assert recording.meta["command"]["exit_code"] == -signal.SIGTERM


def test_all_processes_while_a_command_runs(workloads: Workloads, tmp_path: Path) -> None:
    recording = record(tmp_path / "a.data", "-a", "-F", "999", "--", workloads.build("modes"), "200")
    comms = {comm for (comm,) in recording.rows("SELECT comm FROM processes")}
    assert {"modes", "kthreadd"} <= comms
    assert recording.meta["target"]["kind"] == "all"


def test_the_recording_belongs_to_the_user_behind_sudo(tmp_path: Path) -> None:
    environment = {**os.environ, "SUDO_UID": "65534", "SUDO_GID": "65534", "PYTHONDONTWRITEBYTECODE": "1"}
    run = run_sberf("record", "-o", tmp_path / "u.data", "--", "true", env=environment)
    assert run.status == 0
    owners = {path.stat().st_uid for path in [tmp_path / "u.data", *(tmp_path / "u.data").rglob("*")]}
    assert owners == {65534}
