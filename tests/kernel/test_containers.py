"""Processes in mount and PID namespaces of their own, and in containers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import sberf
from sberf.analysis import Filters, functions
from sberf.analysis.stack_quality import COMPLETE_ENDS
from sberf.recording.recording import Recording
from tests.kernel.containers import Containers, cgroup_of, copy_program, directories, layouts
from tests.kernel.harness import Live, Sample, names, read_samples, record, record_tree, run_sberf
from tests.kernel.processes import Processes, Started, wait_until
from tests.kernel.workloads import Workloads

# `unshare` makes mounts private, so what is mounted here is seen by nobody else.
_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_CHROOT = "exec chroot . /bin/inside 1"
_ENTER = {
    "chroot": ((), _CHROOT),
    "pivot_root": ((), "mkdir old && pivot_root . old && cd / && exec /bin/inside 1"),
    "user namespace": (("--user", "--map-root-user"), _CHROOT),
}
LONG_ID = "5be7f" + f"{os.getpid():059x}"


@pytest.fixture
def containers(tmp_path: Path, processes: Processes) -> Iterator[Containers]:
    if shutil.which("crun") is None:
        pytest.skip("crun is not installed")
    started = Containers(tmp_path, processes)
    yield started
    started.end()


@pytest.fixture(params=layouts())
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def name() -> str:
    return f"sberf-test-{os.getpid()}"


def in_container(recording: Recording, identity: str) -> list[Sample]:
    """The samples that its processes have, none of which may lack something."""
    samples = read_samples(recording, f"p.container = '{identity}'")
    assert {sample.end for sample in samples} <= set(COMPLETE_ENDS)
    return samples


def report(recording: Recording, *arguments: str) -> str:
    run = run_sberf("report", "-i", recording.path, *arguments)
    assert run.status == 0, run
    return run.out


@pytest.mark.parametrize("enter", _ENTER)
def test_a_file_that_is_gone_with_its_mount_namespace(
    workloads: Workloads, processes: Processes, tmp_path: Path, enter: str
) -> None:
    files, root = tmp_path / "files", tmp_path / "root"
    files.mkdir()
    root.mkdir()
    copy_program(workloads.build("busy", output="inside"), files)
    live = processes.add(Live(tmp_path / "gone.data", "-a", "-F", "999"))
    live.wait_for_samples()
    namespaces, command = _ENTER[enter]
    script = f"mount -t tmpfs tmpfs {root} && mv {files}/* {root} && cd {root} && {command}"
    started = processes.start(*_UNSHARE, *namespaces, "sh", "-c", script)
    assert started.line() == "ready"
    assert list(root.iterdir()) == list(files.iterdir()) == []
    assert started.wait() == 0
    recording = live.finish()
    samples = [sample for sample in read_samples(recording) if sample.has("busy_loop")]
    assert len(samples) > 200
    assert {sample.end for sample in samples} == {"entry"}
    assert all(sample.has("main") for sample in samples)
    assert {sample.frames[-1].function for sample in samples} == {"_start"}
    [process] = {sample.process_id for sample in samples}
    where = f"WHERE process_id = {process}"
    # A namespace of one's own is no container.
    row = recording.rows(f"SELECT comm, ns_pid, container, container_name FROM processes {where}")
    assert row == [("inside", 1, None, None)]
    assert " inside\n" in report(recording, "-s", "process")


def test_a_container_that_begins_and_ends_in_a_capture(
    layout: str, name: str, workloads: Workloads, processes: Processes, containers: Containers, tmp_path: Path
) -> None:
    live = processes.add(Live(tmp_path / "life.data", "-a", "-F", "999"))
    live.wait_for_samples()
    started = containers.start(layout, name, workloads.build("busy"), "1")
    assert started.line() == "ready"
    assert started.wait() == 0
    recording = live.finish()
    samples = in_container(recording, name)
    assert len(samples) > 200
    busy = [sample for sample in samples if sample.has("busy_loop")]
    assert {sample.frames[-1].function for sample in busy} == {"_start"}
    modules = {frame.module for sample in busy for frame in sample.frames if frame.kind == "elf"}
    assert {Path(module).name for module in modules} == {"busy", "libc.so.6"}
    [process] = {sample.process_id for sample in samples}
    rows = recording.rows(
        f"SELECT comm, cmdline, ns_pid, container_name FROM processes WHERE process_id = {process}"
    )
    assert rows == [("busy", "/bin/busy 1", 1, name)]
    _check_views(recording, name)


def _check_views(recording: Recording, name: str) -> None:
    table = report(recording, "-s", "container,process")
    assert [line.split()[-2:] for line in table.splitlines() if name in line] == [[name, "busy"]]
    assert f"{name}:busy " in report(recording)
    shown = json.loads(report(recording, "--json", "-s", "container,process", "--container", name))
    [row] = shown["functions"][0]["rows"]
    assert (row["container"], row["process"]) == (name, "busy")
    assert "busy_loop" in report(recording, "--comm", "busy", "--container", name)
    outside = functions(recording, Filters(containers=("[host]",)), by=["sym"])
    assert outside.rows
    assert "busy_loop" not in {row.sym for row in outside.rows}


def test_containers_that_are_gone_at_once(
    layout: str, name: str, workloads: Workloads, processes: Processes, containers: Containers, tmp_path: Path
) -> None:
    """Their processes run for less than a millisecond, while nobody has time to look at them."""
    for _ in range(2 * len(os.sched_getaffinity(0))):
        processes.start(workloads.build("busy"))
    live = processes.add(Live(tmp_path / "quick.data", "-a"))
    live.wait_for_samples()
    wanted = {f"{name}-{number}" for number in range(5)}
    for each in sorted(wanted):
        assert containers.start(layout, each, workloads.build("busy"), "0").wait() == 0
    rows = live.finish().rows("SELECT container, cmdline, ns_pid FROM processes WHERE container IS NOT NULL")
    assert set(rows) == {(each, "/bin/busy 0", 1) for each in wanted}
    assert len(rows) == len(wanted)


def test_a_container_is_recorded_until_it_ends(
    layout: str, name: str, workloads: Workloads, processes: Processes, containers: Containers, tmp_path: Path
) -> None:
    outside = processes.start(workloads.build("busy"))
    tree = containers.start(layout, name, workloads.build("tree"), "400")
    assert tree.line() == "ready"
    live = processes.add(Live(tmp_path / "tree.data", "--container", name, "-F", "2000"))
    recording, truth = record_tree(tree, live)
    samples = read_samples(recording)
    for ns_pid, function, cpu_ns in truth:
        own = [sample for sample in samples if sample.has(function)]
        # Other work on the machine costs a clock some ticks; nobody's are left out.
        assert sum(sample.weight for sample in own) == pytest.approx(int(cpu_ns), rel=0.2)
        [(inside,)] = recording.rows(
            f"SELECT coalesce(ns_pid, -1) FROM processes WHERE process_id = {own[0].process_id}"
        )
        assert inside in (int(ns_pid), -1)  # who has run no program of its own has told none
    assert {name} == {container for (container,) in recording.rows(_SAMPLED_CONTAINERS)}
    assert outside.pid not in {sample.pid for sample in samples}
    assert recording.meta["target"]["kind"] == "container"
    assert recording.meta["target"]["containers"] == [{"id": name, "name": name}]


_SAMPLED_CONTAINERS = """
    SELECT DISTINCT p.container
    FROM samples JOIN threads USING (thread_id) JOIN processes p USING (process_id)"""


def test_cgroups_below_a_container_belong_to_it(
    layout: str, name: str, workloads: Workloads, containers: Containers, tmp_path: Path
) -> None:
    started = containers.start(layout, name, workloads.build("busy"))
    assert started.line() == "ready"
    # A new cpuset takes nobody in before it has CPUs.
    inner = [directory / "inner" for directory in directories(name) if "cpuset" not in directory.parts]
    [pid] = (inner[0].parent / "cgroup.procs").read_text().split()
    for directory in inner:
        directory.mkdir()
        (directory / "cgroup.procs").write_text(pid)
    recording = record(tmp_path / "inner.data", "--container", name, "-F", "999", "-d", "0.5")
    assert "busy_loop" in names(in_container(recording, name))


def test_an_id_without_a_name(
    layout: str, workloads: Workloads, processes: Processes, containers: Containers, tmp_path: Path
) -> None:
    """As a daemon gives it, that keeps no file that we know."""
    started = containers.start(layout, LONG_ID, workloads.build("busy"))
    assert started.line() == "ready"
    recording = record(tmp_path / "id.data", "--container", LONG_ID[:6], "-F", "999", "-d", "0.5")
    assert "busy_loop" in names(in_container(recording, LONG_ID))
    assert recording.rows("SELECT DISTINCT container_name FROM processes WHERE container IS NOT NULL") == [
        (None,)
    ]
    assert f"{LONG_ID[:12]}:busy" in report(recording, "--container", LONG_ID[:12])


def test_several_containers_and_which_one_is_meant(
    name: str, workloads: Workloads, containers: Containers, tmp_path: Path
) -> None:
    wanted = [f"{name}-{number}" for number in range(3)]
    for number, each in enumerate(wanted):
        layout = layouts()[number % len(layouts())]
        assert containers.start(layout, each, workloads.build("busy")).line() == "ready"
    output = tmp_path / "two.data"
    recording = record(output, "--container", ",".join(wanted[:2]), "-F", "999", "-d", "0.5")
    assert {container for (container,) in recording.rows(_SAMPLED_CONTAINERS)} == set(wanted[:2])
    for asked, message, hint in (
        (name, f"'{name}' could be {wanted[0]} or {wanted[1]} or {wanted[2]}", "more of the ID"),
        (f"{name}-7", f"no container '{name}-7' is running", f"near ones are {wanted[2]}, "),
        ("nowhere", "no container 'nowhere' is running", f"running are {wanted[0]}, {wanted[1]}, "),
        (name[:3], f"no container '{name[:3]}' is running", "running are "),
    ):
        run = run_sberf("record", "--container", asked, "-d", "0.1", "-o", tmp_path / "none.data")
        assert run.status == 1
        assert f"error: {message}" in run.err
        assert f"hint: {hint}" in run.err or hint in run.err, run.err


def test_from_python_until_the_container_ends(
    layout: str, name: str, workloads: Workloads, containers: Containers, tmp_path: Path
) -> None:
    started = containers.start(layout, name, workloads.build("busy"), "1")
    assert started.line() == "ready"
    recording = sberf.record(container=name, freq=999, output=tmp_path / "api.data")
    assert "busy_loop" in names(in_container(recording, name))
    assert recording.duration_ns < 20e9


def test_a_perf_map_in_a_container(
    layout: str, name: str, workloads: Workloads, processes: Processes, containers: Containers, tmp_path: Path
) -> None:
    """It lies in the container's own /tmp, under the process ID inside."""
    jit = containers.start(layout, name, workloads.build("jit"), "300")
    assert jit.line() == "/tmp/perf-1.map"
    assert not Path("/tmp/perf-1.map").exists()
    live = processes.add(Live(tmp_path / "jit.data", "--container", name, "-F", "2000"))
    live.wait_for(r" s  0 samples")
    jit.tell()
    assert live.wait() == 0, live.screen
    samples = [sample for sample in in_container(live.opened(), name) if sample.has("run")]
    generated = {sample.frames[0] for sample in samples if sample.in_user_mode} - {None}
    names_there = {(frame.function, frame.symbols) for frame in generated if frame.kind in ("jit", "anon")}
    assert names_there == {("generated_loop", "perf-map")}


def test_a_cgroup_with_a_hostile_name(
    layout: str, workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    """Anything but a slash, a NUL and a line's end."""
    with cgroup_of(layout, f"sberf-test-{os.getpid()}-".encode() + b"\x1b[31m:\xff\xfe <x> \\x2d") as path:
        started = processes.start(*_UNSHARE, workloads.build("busy"))
        try:
            assert started.line() == "ready"
            (Path(os.fsdecode(path)) / "cgroup.procs").write_text(f"{_child(started)}\n")
            recording = record(tmp_path / "hostile.data", "-a", "-F", "999", "-d", "0.5")
            identity = path.rpartition(b"/")[2].decode(errors="backslashreplace")
            rows = recording.rows(
                "SELECT container FROM processes WHERE comm = 'busy' AND container IS NOT NULL"
            )
            assert rows == [(identity,)]
            shown = report(recording, "-s", "container,process")
            assert "\x1b" not in shown
            assert "[31m:\\xff\\xfe <x> \\x2d" in shown
            chosen = record(tmp_path / "chosen.data", "--container", identity, "-F", "999", "-d", "0.5")
            assert "busy_loop" in names(read_samples(chosen))
        finally:
            started.end()


def _child(started: Started) -> int:
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    wait_until(children.read_text, "a child")
    return int(children.read_text().split()[0])
