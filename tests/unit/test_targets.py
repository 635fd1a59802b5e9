"""What can be recorded, and what is wrong with a choice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from sberf.capture.targets import escape_bytes, find_cgroup, make_target, parse_cpus
from sberf.errors import TargetError, UsageError


def a_free_pid() -> int:
    """The ID of a process that has just ended and been reaped."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_nothing_chosen() -> None:
    with pytest.raises(UsageError, match="nothing to record"):
        make_target()


def test_choices_that_exclude_one_another() -> None:
    with pytest.raises(UsageError, match="-a and -p exclude"):
        make_target(everything=True, pids=(os.getpid(),))
    with pytest.raises(UsageError, match="--cgroup and --container exclude"):
        make_target(cgroup="/", containers=("web",))
    with pytest.raises(UsageError, match="-C and -p"):
        make_target(cpus=(0,), pids=(os.getpid(),))


def test_a_command_is_a_target_only_when_nothing_else_is() -> None:
    assert make_target(argv=("true",)).kind == "command"
    assert make_target(everything=True, argv=("true",)).kind == "all"
    assert make_target(cpus=(0,), argv=("true",)).kind == "all"


def test_what_does_not_exist() -> None:
    with pytest.raises(TargetError, match="no process has the ID"):
        make_target(pids=(a_free_pid(),))
    with pytest.raises(TargetError, match="no thread has the ID"):
        make_target(tids=(a_free_pid(),))
    with pytest.raises(TargetError, match="CPU 60000 is not online"):
        make_target(cpus=(60000,))
    with pytest.raises(TargetError, match="no cgroup"):
        make_target(cgroup="no/such/group")
    with pytest.raises(TargetError, match="no container 'no such container'"):
        make_target(containers=("no such container",))


def test_a_thread_is_no_process() -> None:
    ready, done = threading.Event(), threading.Event()
    tids: list[int] = []

    def body() -> None:
        tids.append(threading.get_native_id())
        ready.set()
        done.wait()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        assert ready.wait(10)
        with pytest.raises(TargetError, match=f"is a thread of process {os.getpid()}") as caught:
            make_target(pids=(tids[0],))
        assert caught.value.hint is not None
        assert f"--tid {tids[0]}" in caught.value.hint
        assert make_target(tids=(tids[0],)).kind == "tids"
    finally:
        done.set()
        thread.join()


def test_a_zombie_cannot_be_recorded() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(TargetError, match="has exited"):
            make_target(pids=(process.pid,))
    finally:
        process.wait()


def test_cpu_lists() -> None:
    assert parse_cpus("0-2,5") == [0, 1, 2, 5]
    with pytest.raises(UsageError):
        parse_cpus("0-")


def test_every_cgroup_hierarchys_root_is_found() -> None:
    assert (find_cgroup("/") / "cgroup.procs").exists()


def test_words_that_are_no_utf8_are_escaped() -> None:
    assert escape_bytes((os.fsdecode(b"a\xff"), "b")) == ["a\\xff", "b"]
