"""Programs that start, run for some milliseconds and exit while recording, each one a file of its own."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sberf.recording.recording import Recording
from tests.kernel.harness import Live, Sample, read_samples, share
from tests.kernel.processes import DEADLINE_S, Processes
from tests.kernel.workloads import Workloads

PROGRAMS = 400
NAMELESS = b"work_of_0000000"
_BUILD_ID_NOTE = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"
_ONE_AT_A_TIME = threading.Lock()


def variant(image: bytes, number: int) -> bytes:
    """The program with a function name and a build-id of its own."""
    name = b"work_of_%07d" % number
    assert image.count(NAMELESS) == 1
    at = image.index(_BUILD_ID_NOTE) + len(_BUILD_ID_NOTE)
    image = image.replace(NAMELESS, name)
    return image[:at] + number.to_bytes(20, "big") + image[at + 20 :]


def run_deleted(image: bytes, directory: Path, number: int) -> int:
    """Start a variant as ``prog_NUMBER``; once it runs, delete its file or put another build there."""
    path, other = directory / f"prog_{number}", directory / f"other_{number}"
    other.write_bytes(variant(image, number + PROGRAMS))
    # Another thread's child would hold the descriptor until its exec, and a file that is open for writing
    # cannot be run.  posix_spawn returns after the exec.
    with _ONE_AT_A_TIME:
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o755)
        os.write(descriptor, variant(image, number))
        os.close(descriptor)
        pid = os.posix_spawn(path, [path, str(10 + number % 41)], {})
    path.unlink()
    if number % 2:
        other.rename(path)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope="module")
def short_lived(
    workloads: Workloads, module_processes: Processes, tmp_path_factory: pytest.TempPathFactory
) -> Recording:
    """A recording of hundreds of programs."""
    directory = tmp_path_factory.mktemp("short_lived")
    image = workloads.build("short_lived", "-static").read_bytes()
    live = Live(directory / "short.data", "-a", "-F", "2000")
    module_processes.add(live)
    live.wait_for_samples()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        statuses = pool.map(
            lambda number: run_deleted(image, directory, number), range(PROGRAMS), timeout=DEADLINE_S
        )
        assert set(statuses) == {0}
    return live.finish()


@pytest.fixture(scope="module")
def in_programs(short_lived: Recording) -> list[Sample]:
    """The user-mode samples of the programs."""
    samples = read_samples(short_lived, "p.comm LIKE 'prog\\_%' ESCAPE '\\'")
    return [sample for sample in samples if sample.in_user_mode]


def test_every_program_is_there_with_its_life(short_lived: Recording) -> None:
    rows = short_lived.rows(
        """SELECT comm, exe, cmdline, start_ns, end_ns FROM processes
           WHERE comm LIKE 'prog\\_%' ESCAPE '\\' AND exe LIKE '%/prog%' ORDER BY comm"""
    )
    assert {comm for comm, *_ in rows} == {f"prog_{number}" for number in range(PROGRAMS)}
    for comm, exe, cmdline, start_ns, end_ns in rows:
        number = int(comm.removeprefix("prog_"))
        assert exe.endswith(f"/{comm}")
        assert cmdline == f"{exe} {10 + number % 41}"
        assert end_ns - start_ns >= (10 + number % 41) * 1_000_000


def test_the_samples_have_names(in_programs: list[Sample]) -> None:
    assert len(in_programs) > 10 * PROGRAMS
    assert share(in_programs, lambda sample: sample.functions[0] is not None) >= 0.995


def test_each_name_is_that_of_the_program_itself(in_programs: list[Sample]) -> None:
    for sample in in_programs:
        number = int(sample.comm.removeprefix("prog_"))
        work = {function for function in sample.functions if function and function.startswith("work_of_")}
        assert work <= {f"work_of_{number:07}"}
    assert share(in_programs, lambda sample: "work_of_" in str(sample.functions)) > 0.97
