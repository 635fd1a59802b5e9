"""Addresses mean nothing without the process and the time: not one wrong name."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.kernel.harness import (
    Live,
    Sample,
    is_kernel,
    names,
    opened,
    read_samples,
    record,
    run_sberf,
    share,
)
from tests.kernel.processes import Processes, Started
from tests.kernel.workloads import Workloads

# Programs and libraries lie at the same addresses in every process.
FIXED = ("setarch", "-R")
LAYOUTS = {"non-PIE": ("-no-pie", "-fno-pie"), "PIE": ("-pie", "-fPIE")}


class Twins:
    """The programs ``twin_one`` and ``twin_two``, each with a library."""

    def __init__(self, workloads: Workloads, layout: str) -> None:
        shift = {"one": (), "two": ("-DSHIFT",)}
        suffix = layout.lower().replace("-", "")
        self.programs = {
            name: workloads.build(
                "twin", f"-DNAME={name}", *flags, *LAYOUTS[layout], output=f"twin_{name}_{suffix}"
            )
            for name, flags in shift.items()
        }
        self.libraries = {
            name: workloads.build(
                "twin_lib", f"-DNAME={name}", *flags, "-shared", "-fPIC", output=f"lib_{name}_{suffix}.so"
            )
            for name, flags in shift.items()
        }

    def argv(self, name: str, *arguments: str | Path) -> list[str | Path]:
        return [*FIXED, self.programs[name], self.libraries[name], *arguments]


@pytest.fixture(params=LAYOUTS)
def twins(request: pytest.FixtureRequest, workloads: Workloads) -> Twins:
    return Twins(workloads, request.param)


def code_of(started: Started) -> dict[str, tuple[str, str]]:
    """Where the code of its own files lies: the path, and range and file offset."""
    places = {}
    for line in started.lines_until("ready"):
        match = re.fullmatch(r"maps (\S+) r-xp (\S+) \S+ \S+ +(/.*)", line)
        if match and "/workloads" in match[3]:
            places["library" if ".so" in match[3] else "program"] = (match[3], f"{match[1]} at {match[2]}")
    return places


def check_names(samples: list[Sample], name: str, files: set[str]) -> None:
    """No name of the other twin, no module that the process did not map, and every own address named."""
    other = {"one": "two", "two": "one"}[name]
    wrong = {function for function in names(samples) if function.startswith(f"{other}_")}
    assert wrong == set()
    own = [
        frame for s in samples for frame in s.frames if not is_kernel(frame) and "/workloads" in frame.module
    ]
    assert {frame.module for frame in own} <= files
    assert {frame for frame in own if frame.function is None} == set()
    expected = {f"{name}_first", f"{name}_second", f"{name}_lib_first", f"{name}_lib_second"}
    expected |= {"two_shift", "two_lib_shift"} if name == "two" else set()
    assert {function for function in names(samples) if function.startswith(f"{name}_")} == expected


def test_two_programs_at_the_same_addresses(twins: Twins, processes: Processes, tmp_path: Path) -> None:
    live = Live(tmp_path / "twins.data", "-a", "-F", "2000")
    before = processes.start(*twins.argv("one"))  # mapped before the capture begins: from /proc
    code = {"one": code_of(before)}
    processes.add(live)
    live.wait_for_samples()
    after = processes.start(*twins.argv("two"))  # mapped meanwhile: from the side-band
    code["two"] = code_of(after)
    live.wait_for(r"\r +[1-9]\.\d s ")
    again = processes.start(*twins.argv("one", "300"))
    code_of(again)
    assert again.wait() == 0
    samples = read_samples(live.finish())
    assert {place for _, place in code["one"].values()} == {place for _, place in code["two"].values()}
    for started, name in ((before, "one"), (after, "two"), (again, "one")):
        own = [sample for sample in samples if sample.pid == started.pid]
        assert len(own) > 100
        check_names(own, name, {path for path, _ in code[name].values()})


def test_an_exec_half_way(twins: Twins, tmp_path: Path) -> None:
    """One PID runs both twins: names, modules and comm before and after belong to the right program."""
    two = twins.argv("two", "200")[len(FIXED) :]
    run = run_sberf(
        "record", "-o", tmp_path / "exec.data", "-F", "4000", "--", *twins.argv("one", "200", *two)
    )
    assert run.status == 0
    recording = opened(tmp_path / "exec.data")
    samples = read_samples(recording)
    assert len({sample.pid for sample in samples}) == 1
    rows = recording.rows(
        """SELECT p.process_id, p.comm, p.exe, f.process_id, p.start_ns = f.end_ns FROM processes p
           LEFT JOIN processes f ON p.exec_from_process_id = f.process_id"""
    )
    by_exe = {exe: (process, comm, before, seamless) for process, comm, exe, before, seamless in rows}
    for name in ("one", "two"):
        path = str(twins.programs[name])
        process, comm, before, seamless = by_exe[path]
        assert path.rpartition("/")[2][:15] == comm
        if name == "two":
            assert (before, seamless) == (by_exe[str(twins.programs["one"])][0], True)
        own = [sample for sample in samples if sample.process_id == process]
        check_names(own, name, {path, str(twins.libraries[name])})
        assert {sample.thread for sample in own if name in str(sample.functions)} == {comm}


def test_a_reused_process_id(
    workloads: Workloads, twins: Twins, processes: Processes, tmp_path: Path
) -> None:
    """Three lives with one PID: a twin, the other twin, and a child that never execs."""
    live = Live(tmp_path / "reuse.data", "-a", "-F", "4000")
    processes.add(live)
    live.wait_for_samples()
    first = processes.start(*twins.argv("one", "150"))
    pid = first.pid
    first.output()
    assert first.wait() == 0
    with_pid = workloads.build("with_pid")
    for ms, program in ((0, twins.argv("two", "150")), (150, [])):
        second = processes.start(with_pid, str(pid), str(ms), *_absolute(program))
        second.output()
        assert second.wait() == 0
    recording = live.finish()
    samples = [sample for sample in read_samples(recording) if sample.pid == pid]
    lives = [
        ("one", [s for s in samples if s.comm.startswith("twin_one")]),
        ("two", [s for s in samples if s.comm.startswith("twin_two")]),
    ]
    for name, own in lives:
        assert len(own) > 100
        check_names(own, name, {str(twins.programs[name]), str(twins.libraries[name])})
    reused = [
        s for s in samples if s.comm == "with_pid" and s.has("reused") and s.ts_ns > lives[1][1][-1].ts_ns
    ]
    assert len(reused) > 100
    assert len({s.process_id for s in [*lives[0][1], *lives[1][1], *reused]}) == 3
    assert not {"reused"} & names(lives[0][1] + lives[1][1])


def _absolute(argv: list[str | Path]) -> list[str | Path]:
    """``execv`` wants a path."""
    return ["/usr/bin/setarch", *argv[1:]] if argv else []


def test_a_file_deleted_while_it_runs(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    """Opened through /proc/PID/map_files, before the capture or after the deletion alike."""
    copy = _copy(workloads.build("busy"), tmp_path / "gone")
    busy = processes.start(copy)
    assert busy.line() == "ready"
    copy.unlink()
    samples = read_samples(record(tmp_path / "gone.data", "-p", str(busy.pid), "-F", "999", "-d", "0.4"))
    in_user = [sample for sample in samples if sample.in_user_mode]
    assert share(in_user, lambda sample: sample.has("busy_loop")) > 0.99
    assert {frame.module for s in in_user for frame in s.frames if frame.function == "busy_loop"} == {
        str(copy)
    }


def test_a_file_replaced_by_another_build_while_it_runs(
    workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    """Old and new build run under one path: each has its own names."""
    layout = Twins(workloads, "PIE")
    path = _copy(layout.programs["one"], tmp_path / "twin")
    old = processes.start(*FIXED, path, layout.libraries["one"])
    old.lines_until("ready")
    _copy(layout.programs["two"], tmp_path / "new").rename(path)
    live = Live(tmp_path / "replaced.data", "-a", "-F", "2000")
    processes.add(live)
    live.wait_for_samples()
    new = processes.start(*FIXED, path, layout.libraries["two"], "300")
    new.output()
    assert new.wait() == 0
    recording = live.finish(signal.SIGTERM)
    samples = read_samples(recording)
    for started, name in ((old, "one"), (new, "two")):
        own = [sample for sample in samples if sample.pid == started.pid]
        seen = {function for function in names(own) if function.startswith(("one_", "two_"))}
        assert {f"{name}_first", f"{name}_second"} <= seen
        assert all(function.startswith(name) for function in seen)
    [(modules,)] = recording.rows(f"SELECT count(DISTINCT build_id) FROM modules WHERE path = '{path}'")
    assert modules == 2


def _copy(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    target.chmod(0o755)
    return target
