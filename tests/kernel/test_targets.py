"""What is recorded: all, processes with or without their children, threads, CPUs, cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sberf.recording.recording import Recording
from tests.kernel.harness import Live, Sample, names, read_samples, record, record_tree, run_sberf, share
from tests.kernel.processes import Processes, Started, wait_until
from tests.kernel.workloads import Workloads


@pytest.fixture
def threads(workloads: Workloads, processes: Processes) -> tuple[Started, dict[str, int]]:
    """The workload ``threads`` and the IDs of its threads."""
    started = processes.start(workloads.build("threads"))
    return started, dict(_id_of(started.line()) for _ in range(2))


def _id_of(line: str) -> tuple[str, int]:
    name, number = line.split()
    return name, int(number)


def spinning(samples: list[Sample]) -> dict[str, set[tuple[int, str]]]:
    """The functions ``spin_in_...`` and the threads that were seen in them."""
    seen: dict[str, set[tuple[int, str]]] = {}
    for sample in samples:
        for function in sample.functions:
            if function and function.startswith("spin_in_"):
                seen.setdefault(function, set()).add((sample.tid, sample.thread))
    return seen


def test_a_process_with_new_threads_and_children(
    threads: tuple[Started, dict[str, int]], processes: Processes, tmp_path: Path
) -> None:
    started, ids = threads
    live = Live(tmp_path / "p.data", "-p", str(started.pid), "-F", "999")
    processes.add(live)
    live.wait_for_samples()
    started.tell()
    ids |= dict(_id_of(started.line()) for _ in range(2))
    samples = _until_seen(live, ids, "child", "delta")
    assert spinning(samples) == {
        f"spin_in_{name}": {(ids[name], name)} for name in ("alpha", "beta", "delta", "child")
    }
    assert {sample.pid for sample in samples} == {started.pid, ids["child"]}
    comms = {(sample.pid, sample.comm) for sample in samples}
    assert comms == {(started.pid, "threads"), (ids["child"], "child")}


def _until_seen(live: Live, ids: dict[str, int], *wanted: str) -> list[Sample]:
    """Record on until each of the wanted tasks has had 0.2 s of CPU time since now."""
    before = {name: _cpu_ticks(ids[name]) for name in wanted}
    ticks = os.sysconf("SC_CLK_TCK") / 5
    wait_until(lambda: all(_cpu_ticks(ids[n]) > before[n] + ticks for n in wanted), f"{wanted} run")
    return read_samples(live.finish())


def _cpu_ticks(tid: int) -> int:
    fields = Path(f"/proc/{tid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_no_inherit_leaves_out_children_but_not_new_threads(
    threads: tuple[Started, dict[str, int]], processes: Processes, tmp_path: Path
) -> None:
    started, ids = threads
    live = Live(tmp_path / "n.data", "-p", str(started.pid), "-F", "999", "--no-inherit")
    processes.add(live)
    live.wait_for_samples()
    started.tell()
    ids |= dict(_id_of(started.line()) for _ in range(2))
    samples = _until_seen(live, ids, "child", "delta")
    assert spinning(samples).keys() == {"spin_in_alpha", "spin_in_beta", "spin_in_delta"}
    assert {sample.pid for sample in samples} == {started.pid}


def test_one_thread(threads: tuple[Started, dict[str, int]], tmp_path: Path) -> None:
    _, ids = threads
    recording = record(tmp_path / "t.data", "--tid", str(ids["beta"]), "-F", "999", "-d", "0.5")
    samples = read_samples(recording)
    assert len(samples) > 20
    assert {(sample.tid, sample.thread) for sample in samples} == {(ids["beta"], "beta")}
    assert spinning(samples).keys() == {"spin_in_beta"}


def test_two_processes_and_nothing_else(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    busy = [processes.start(workloads.build("busy")) for _ in range(3)]
    wanted = {started.pid for started in busy[:2]}
    recording = record(tmp_path / "two.data", "-p", ",".join(map(str, wanted)), "-F", "999", "-d", "0.6")
    assert {sample.pid for sample in read_samples(recording)} == wanted
    assert {pid for (pid,) in recording.rows("SELECT pid FROM processes")} == wanted


def test_a_bare_process_id(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    busy = processes.start(workloads.build("busy"))
    recording = record(tmp_path / "bare.data", str(busy.pid), "-d", "0.3")
    assert {sample.pid for sample in read_samples(recording)} == {busy.pid}


def test_the_end_of_the_processes_ends_the_capture(
    workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    busy = processes.start(workloads.build("busy"))
    live = Live(tmp_path / "end.data", "-p", str(busy.pid))
    processes.add(live)
    live.wait_for_samples()
    busy.end()
    assert live.wait() == 0
    assert live.opened().rows("SELECT pid, comm, end_ns IS NULL FROM processes") == [
        (busy.pid, "busy", False)
    ]


def test_a_tree_of_fork_vfork_and_exec(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    tree = processes.start(workloads.build("tree"), "400")
    assert tree.line() == "ready"
    live = processes.add(Live(tmp_path / "tree.data", "-p", str(tree.pid), "-F", "2000"))
    recording, truth = record_tree(tree, live)
    samples = read_samples(recording)
    for pid, function, cpu_ns in truth:
        own = [sample for sample in samples if sample.has(function)]
        assert {sample.pid for sample in own} == {int(pid)}
        assert sum(sample.weight for sample in own) == pytest.approx(int(cpu_ns), rel=0.05)
    _check_family(recording, {function: int(pid) for pid, function, _ in truth})


def _check_family(recording: Recording, pids: dict[str, int]) -> None:
    rows = recording.rows(
        """SELECT c.pid, c.comm, p.pid, e.pid FROM processes c
           LEFT JOIN processes p ON c.parent_process_id = p.process_id
           LEFT JOIN processes e ON c.exec_from_process_id = e.process_id
           ORDER BY c.start_ns"""
    )
    parent, child, grandchild = pids["of_parent"], pids["of_child"], pids["of_grandchild"]
    assert (child, "tree", parent, None) in rows
    assert (grandchild, "tree", child, None) in rows
    # After its exec of /proc/self/exe; the kernel takes the last part of the path.
    assert (grandchild, "exe", child, grandchild) in rows


def test_cpus(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("there is one CPU only")
    here, there = (
        processes.start("taskset", "-c", str(cpu), workloads.build("busy")).pid for cpu in (cpus[0], cpus[-1])
    )
    recording = record(tmp_path / "c.data", "-C", str(cpus[-1]), "-F", "999", "-d", "0.5")
    samples = read_samples(recording)
    assert {sample.cpu for sample in samples} == {cpus[-1]}
    pids = {sample.pid for sample in samples}
    assert there in pids
    assert here not in pids


def _hierarchies() -> list[Path]:
    """Where cgroups can be made: one v1 hierarchy with a controller, and v2."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split(" ")
        if kind == "cgroup2" or (kind == "cgroup" and "freezer" in options.split(",")):
            found[kind] = Path(where)
    return sorted(found.values())


@pytest.fixture(params=_hierarchies(), ids=str)
def cgroup(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A cgroup of our own; its processes are ended before it is removed."""
    directory = Path(request.param) / f"sberf-test-{os.getpid()}"
    inner = directory / "inner"
    inner.mkdir(parents=True)
    yield directory
    for path in (inner, directory):
        wait_until(lambda p=path: not (p / "cgroup.procs").read_text(), f"{path} is empty")
        path.rmdir()


def test_the_processes_in_a_cgroup(
    cgroup: Path, workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    inside, below, outside = (processes.start(workloads.build("busy")) for _ in range(3))
    for started, group in ((inside, cgroup), (below, cgroup / "inner")):
        (group / "cgroup.procs").write_text(f"{started.pid}\n")
    recording = record(tmp_path / "g.data", "--cgroup", cgroup, "-F", "999", "-d", "0.6")
    samples = read_samples(recording)
    assert {sample.pid for sample in samples} == {inside.pid, below.pid}
    assert "busy_loop" in names(samples)
    assert outside.process.poll() is None
    for started in (inside, below):
        started.end()


def test_cgroups_are_the_same_by_their_path_in_the_hierarchy(cgroup: Path, tmp_path: Path) -> None:
    run = run_sberf("record", "--cgroup", cgroup.name, "-d", "0.1", "-o", tmp_path / "rel.data")
    assert (run.status, "0 samples" in run.err) == (0, True), run.err


def test_everything(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    """Every process alive is in the table, also those that got no CPU time."""
    busy = processes.start(workloads.build("busy"))
    sleeper = processes.start("sleep", "600")
    recording = record(tmp_path / "a.data", "-a", "-F", "999", "-d", "0.5")
    assert busy.pid in {sample.pid for sample in read_samples(recording)}
    rows = recording.rows(
        f"""SELECT comm, exe, cmdline, uid, start_ns < {recording.start_ns} FROM processes
            WHERE pid = {sleeper.pid}"""
    )
    assert rows == [("sleep", os.path.realpath("/bin/sleep"), "sleep 600", 0, True)]
    assert recording.rows("SELECT pid, exe FROM processes WHERE comm = 'kthreadd'") == [(2, None)]


def test_two_captures_at_once(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    busy = processes.start(workloads.build("busy"))
    lives = [
        processes.add(Live(tmp_path / f"{name}.data", *arguments, "-F", "999"))
        for name, arguments in (("all", ("-a",)), ("one", ("-p", str(busy.pid))))
    ]
    for live in lives:
        live.wait_for_samples()
    for live in lives:
        samples = [sample for sample in read_samples(live.finish()) if sample.pid == busy.pid]
        assert share(samples, lambda sample: sample.has("busy_loop")) > 0.95


def test_reading_needs_no_privileges(workloads: Workloads, tmp_path: Path) -> None:
    output = tmp_path / "read.data"
    record(output, "-F", "999", "--", workloads.build("modes"), "100")
    without = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    for arguments in (("report",), ("script",), ("query", "SELECT count(*) FROM samples")):
        run = run_sberf(*arguments, "-i", output, prefix=without)
        assert (run.status, run.err) == (0, ""), run
