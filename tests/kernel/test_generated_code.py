"""Names of generated code, from /tmp/perf-PID.map: whose map counts, and where it lies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.harness import Live, Sample, read_samples, record_while_it_runs, run_sberf
from tests.kernel.processes import Processes, Started
from tests.kernel.workloads import Workloads

Start = Callable[[int], tuple[Started, Path]]

NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def record_run(jit: Started, processes: Processes, output: Path) -> list[Sample]:
    """Record while the generated code runs: 300 ms of CPU time."""
    recording = record_while_it_runs(jit, processes.add(Live(output, "-a", "-F", "2000")))
    return [sample for sample in read_samples(recording) if sample.comm == "jit"]


def in_generated_code(samples: list[Sample]) -> set[tuple[str | None, str, str]]:
    """What the frames outside of any file were taken for."""
    frames = {sample.frames[0] for sample in samples if sample.has("run") and sample.in_user_mode}
    return {(frame.function, frame.kind, frame.symbols) for frame in frames if frame.kind in ("jit", "anon")}


@pytest.fixture
def start(workloads: Workloads, processes: Processes) -> Iterator[Start]:
    """Starts the workload as a user; gives it and the path of its map."""
    maps = []

    def start_as(uid: int) -> tuple[Started, Path]:
        jit = processes.start(*(AS_NOBODY if uid else ()), workloads.build("jit"), "300")
        maps.append(Path(jit.line()))
        assert maps[-1] == Path(f"/tmp/perf-{jit.pid}.map")
        return jit, maps[-1]

    yield start_as
    for path in maps:
        path.unlink()


@pytest.mark.parametrize(("runner", "owner"), [(0, 0), (NOBODY, NOBODY), (NOBODY, 0)])
def test_a_map_of_the_user_or_of_root_counts(
    start: Start, processes: Processes, tmp_path: Path, runner: int, owner: int
) -> None:
    jit, path = start(runner)
    os.chown(path, owner, owner)
    samples = record_run(jit, processes, tmp_path / "jit.data")
    assert in_generated_code(samples) == {("generated_loop", "jit", "perf-map")}
    in_loop = [sample for sample in samples if sample.has("generated_loop") and sample.in_user_mode]
    assert len(in_loop) > 400
    assert {sample.functions[:2] for sample in in_loop} <= {
        ("generated_loop", "run"),
        ("generated_loop", "main"),
    }


def test_a_map_that_its_process_deletes(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    jit = processes.start(workloads.build("jit"), "1000", "delete")
    path = Path(jit.line())
    samples = record_run(jit, processes, tmp_path / "deleted.data")
    assert in_generated_code(samples) == {("generated_loop", "jit", "perf-map")}
    assert not path.exists()


def test_a_map_of_another_user_is_ignored(start: Start, processes: Processes, tmp_path: Path) -> None:
    jit, path = start(0)
    os.chown(path, NOBODY, NOBODY)
    samples = record_run(jit, processes, tmp_path / "foreign.data")
    [(function, _, symbols)] = in_generated_code(samples)
    assert function is None
    assert symbols.startswith("none: ")


def test_a_link_to_a_file_of_somebody_else_is_ignored(
    start: Start, processes: Processes, tmp_path: Path
) -> None:
    """A user must not have root read what only root may."""
    jit, path = start(NOBODY)
    secret = tmp_path / "secret"
    path.rename(secret)
    os.chown(secret, NOBODY + 1, NOBODY + 1)
    path.symlink_to(secret)
    samples = record_run(jit, processes, tmp_path / "link.data")
    assert {function for function, _, _ in in_generated_code(samples)} == {None}


def test_a_map_in_a_container(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    """Another /tmp, and another process ID inside."""
    program = Path("/var/tmp") / f"sberf-test-{os.getpid()}"
    program.write_bytes(workloads.build("jit").read_bytes())
    program.chmod(0o755)
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    jit = processes.start(*namespaces, "sh", "-c", f"mount -t tmpfs tmpfs /tmp && exec {program} 300")
    assert jit.line() == "/tmp/perf-1.map"
    program.unlink()
    assert not Path("/tmp/perf-1.map").exists()
    live = processes.add(Live(tmp_path / "container.data", "-a", "-F", "2000"))
    live.wait_for_samples()
    jit.tell()
    assert jit.wait() == 0
    recording = live.finish()
    samples = [sample for sample in read_samples(recording) if sample.has("run")]
    assert in_generated_code(samples) == {("generated_loop", "jit", "perf-map")}
    [process] = {sample.process_id for sample in samples}
    assert recording.rows(f"SELECT ns_pid FROM processes WHERE process_id = {process}") == [(1,)]


def test_hostile_names_in_a_map(start: Start, processes: Processes, tmp_path: Path) -> None:
    """Lines that make no sense are left out, names that try something are shown as what they are."""
    jit, path = start(NOBODY)
    address, size, _ = path.read_text().split()
    hostile = b"\x1b[31mLazy:<script>\xff\xfe;x"
    junk = b"zz 10 no_number\nffffffffffffffff ffffffffffffffff wraps\n10\n\n" + b"a" * 100_000 + b"\n"
    path.write_bytes(junk + f"{address} {size} ".encode() + hostile + b"\n" + b"\0" * 4096)
    output = tmp_path / "hostile.data"
    samples = record_run(jit, processes, output)
    expected = "\x1b[31mLazy:<script>\\xff\\xfe;x"
    assert in_generated_code(samples) == {(expected, "jit", "perf-map")}
    for arguments in (("report",), ("script",), ("script", "--folded")):
        shown = run_sberf(*arguments, "-i", output).out
        assert "\x1b" not in shown
        assert "[31mLazy:<script>" in shown
