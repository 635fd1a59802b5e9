"""What cannot be recorded is one clear message, an exit status, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sberf.capture.events import parse_events
from sberf.capture.options import Options, max_sample_rate
from sberf.capture.session import Session
from sberf.capture.targets import make_target
from sberf.errors import TargetError
from tests.kernel.harness import ROOT, SBERF, environment, leftovers, opened, record, run_sberf
from tests.kernel.processes import Processes, wait_until
from tests.kernel.workloads import Workloads

CAP_HZ = max_sample_rate() or 100_000


@pytest.mark.parametrize(
    ("arguments", "status", "message", "hint"),
    [
        (("-p", "4194304"), 1, "no process has the ID 4194304", "ps -e"),
        (("--tid", "4194304"), 1, "no thread has the ID 4194304", "ps -eL"),
        (("--", "/nonexistent/program"), 1, "cannot start '/nonexistent/program'", "path"),
        (("--", "/etc/passwd"), 1, "cannot start '/etc/passwd': Permission denied", "path"),
        ((), 2, "nothing to record", "-a"),
        (("-a", "-e", "cpu-clok"), 2, "unknown event 'cpu-clok'", "cpu-clock"),
        (("-a", "-e", "LLC-load-misses"), 1, "no event 'LLC-load-misses'", "doctor"),
        (("-a", "-F", str(CAP_HZ + 1)), 2, f"over the kernel's cap of {CAP_HZ} Hz", "--clamp"),
        (("-a", "-F", "0"), 2, "takes no samples", None),
        (("-a", "-c", "10"), 2, "too short", "10000 ns"),
        (("-a", "--max-depth", "5000"), 2, "not between 1 and 1024", None),
        (("-a", "--buffer", "1"), 2, "not between", None),
        (("-a", "-d", "0"), 2, "records nothing", None),
        (("-a", "-C", "9999"), 1, "CPU 9999 is not online", "online are"),
        (("-a", "--cgroup", "x"), 2, "exclude one another", None),
        (("--cgroup", "no/such/group"), 1, "no cgroup", "/sys/fs/cgroup"),
    ],
)
def test_what_cannot_be_recorded(
    tmp_path: Path, arguments: tuple[str, ...], status: int, message: str, hint: str | None
) -> None:
    run = run_sberf("record", "-o", tmp_path / "bad.data", *arguments)
    assert (run.status, run.out) == (status, ""), run
    assert message in run.err
    assert hint is None or hint in run.err.partition("hint: ")[2]
    assert sorted(tmp_path.iterdir()) == []


def test_a_process_that_exits_while_it_is_attached(
    workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    """It was there when the arguments were checked."""
    busy = processes.start(workloads.build("busy"))
    target = make_target(pids=(busy.pid,))
    busy.end()
    events = tuple(parse_events("cpu-clock", frequency_hz=99, period=None))
    with pytest.raises(TargetError, match=f"process {busy.pid} exited before it could be recorded"):
        Session(Options(target=target, events=events, output=tmp_path / "gone.data"))
    assert list(tmp_path.iterdir()) == []


def test_a_zombie(processes: Processes, tmp_path: Path) -> None:
    dead = processes.start("true", stdout=subprocess.DEVNULL)
    wait_until(lambda: "State:\tZ" in Path(f"/proc/{dead.pid}/status").read_text(), "the zombie")
    run = run_sberf("record", "-p", str(dead.pid), "-o", tmp_path / "dead.data")
    assert (run.status, f"process {dead.pid} has exited" in run.err) == (1, True)


def test_a_thread_is_no_process(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    threads = processes.start(workloads.build("threads"))
    tid = threads.line().split()[1]
    run = run_sberf("record", "-p", tid, "-o", tmp_path / "thread.data")
    assert run.status == 1
    assert f"{tid} is a thread of process {threads.pid}" in run.err
    assert f"hint: give --tid {tid}, or -p {threads.pid}" in run.err


@pytest.mark.parametrize("place", ["missing/deep.data", "file/under.data"])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    run = run_sberf("record", "-a", "-d", "1", "-o", tmp_path / place)
    assert run.status == 1
    assert "cannot write to" in run.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_clamp_takes_the_cap(tmp_path: Path) -> None:
    run = run_sberf(
        "record", "-F", str(10 * CAP_HZ), "--clamp", "-o", tmp_path / "clamped.data", "--", "sleep", "0.01"
    )
    assert run.status == 0, run.err
    assert f"taking {CAP_HZ} Hz, the kernel's cap" in run.err
    assert opened(tmp_path / "clamped.data").meta["sources"][0]["frequency_hz"] == CAP_HZ


def test_cycles_become_a_clock_where_there_is_no_counter(tmp_path: Path) -> None:
    run = run_sberf("record", "-e", "cycles", "-o", tmp_path / "cycles.data", "--", sys.executable, "-c", "")
    assert run.status == 0, run.err
    event = opened(tmp_path / "cycles.data").meta["sources"][0]["event"]
    assert event in ("cycles", "cpu-clock")
    assert (event == "cpu-clock") == ("this machine has no cycles counter" in run.err)


def test_without_privileges(tmp_path: Path) -> None:
    without = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    run = run_sberf("record", "-a", "-d", "1", "-o", tmp_path / "denied.data", prefix=without)
    assert run.status == 1
    assert "may not" in run.err
    assert "CAP_BPF" in run.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_what_is_no_recording_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "thesis"
    if kind == "directory":
        output.mkdir()
        (output / "chapter1").write_text("years of work")
    elif kind == "file":
        output.write_text("years of work")
    else:
        output.symlink_to("elsewhere")
    run = run_sberf("record", "-a", "-d", "1", "-o", output)
    assert run.status == 1
    assert "is no recording" in run.err
    assert output.is_symlink() or output.exists()
    assert leftovers(output) == []


def test_an_older_recording_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "twice.data"
    first = record(output, "--", "true").meta["window"]
    second = record(output, "--", "true").meta["window"]
    assert json.loads((tmp_path / "twice.data.old" / "meta.json").read_text())["window"] == first
    assert first != second


FULL_DISK = """
set -e
mount -t tmpfs -o size=600k tmpfs "$1"
cd "$1"
status=0
"$2" -m sberf record -a -F 10000 -d 20 -o full.data || status=$?
echo "status $status"
ls -d full.data* || true
mount -o remount,size=64m "$1"
if [ -d full.data.spool-* ]; then "$2" -m sberf recover; fi
"$2" -m sberf doctor --recording full.data
"$2" -m sberf query -i full.data "SELECT 'samples ' || (count(*) > 0) FROM samples" --format csv
"""


def test_a_full_disk(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    """What was written is kept, and can be finished when there is room again."""
    busy = processes.start(workloads.build("busy"))
    assert busy.line() == "ready"
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    command = ["unshare", "-m", "bash", "-c", FULL_DISK, "full-disk", str(mount_point), sys.executable]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "samples true" in done.stdout
    assert "no problems" in done.stdout


@pytest.mark.parametrize("signal_name", ["INT", "TERM"])
def test_a_command_that_is_killed_gives_the_shells_status(tmp_path: Path, signal_name: str) -> None:
    number = {"INT": 2, "TERM": 15}[signal_name]
    # Python: a shell cannot undo that the tests' own shell ignores a signal.
    script = f"import os, signal; signal.signal({number}, signal.SIG_DFL); os.kill(os.getpid(), {number})"
    run = run_sberf("record", "-o", tmp_path / "killed.data", "--", sys.executable, "-c", script)
    assert run.status == 128 + number
    assert opened(tmp_path / "killed.data").meta["command"]["exit_code"] == -number


def test_the_commands_own_descriptors_are_its_own(tmp_path: Path) -> None:
    command = [*SBERF, "record", "-o", str(tmp_path / "cat.data"), "--", "cat"]
    done = subprocess.run(
        command,
        input=b"through\n",
        capture_output=True,
        timeout=120,
        env=environment(),
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"through\n")
    assert os.path.isdir(tmp_path / "cat.data")
