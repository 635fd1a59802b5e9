"""Runs sberf on workloads and reads what it recorded."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sberf
from sberf.recording.recording import Recording
from tests.kernel.processes import DEADLINE_S, Started, wait_until

SBERF = [sys.executable, "-m", "sberf"]
ROOT = Path(__file__).parents[2]
LOSSES = ("dropped_records", "missed_samples", "throttled", "lost_sideband", "unresolved_stacks")


@dataclass(frozen=True)
class Run:
    """What a finished ``sberf`` left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


def run_sberf(*arguments: str | Path, prefix: Sequence[str] = (), **options: Any) -> Run:
    """Run ``sberf`` to its end.

    Args:
        arguments: Its arguments.
        prefix: Words before the command, such as ``setpriv``'s.
        options: For subprocess.run.
    """
    command = [*prefix, *SBERF, *map(os.fspath, arguments)]
    options = {"stdin": subprocess.DEVNULL, "timeout": 3 * DEADLINE_S, "env": environment()} | options
    result = subprocess.run(command, capture_output=True, check=False, **options)
    run = Run(
        result.returncode, result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")
    )
    assert "Traceback" not in run.err, run.err
    return run


def environment() -> dict[str, str]:
    """Ours, with this checkout importable from everywhere and its files left alone."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def record(output: Path, *arguments: str | Path, lossless: bool = True, **options: Any) -> Recording:
    """``sberf record -o OUTPUT ARGUMENTS`` must succeed and give a sound recording."""
    run = run_sberf("record", "-o", output, *arguments, **options)
    assert (run.status, run.out) == (0, ""), run
    return opened(output, lossless=lossless)


def opened(output: Path, *, lossless: bool = True) -> Recording:
    """The recording, all of whose invariants hold."""
    recording = sberf.open(output)
    assert [str(problem) for problem in recording.check()] == []
    assert leftovers(output) == []
    if lossless:
        assert lost(recording) == {}
    return recording


def lost(recording: Recording) -> dict[str, int]:
    """The losses that are not 0."""
    return {name: recording.losses[name] for name in LOSSES if recording.losses[name]}


def leftovers(output: Path) -> list[str]:
    """What a capture has not put away beside its output."""
    patterns = (f"{output.name}.spool-*", f"{output.name}.tmp-*", ".*.partial")
    return sorted(path.name for pattern in patterns for path in output.parent.glob(pattern))


def find_spool(output: Path) -> Path | None:
    """The spool of a capture that writes to ``output``, once it has written to it."""
    spools = [path for path in output.parent.glob(f"{output.name}.spool-*") if (path / "events").exists()]
    assert len(spools) < 2
    return spools[0] if spools else None


class Live(Started):
    """A capture in the background, with a terminal as its standard error for its live line."""

    def __init__(self, output: Path, *arguments: str | Path, **options: Any) -> None:
        self.output_path = output
        ours, theirs = os.openpty()
        command = [*SBERF, "record", "-o", output, *arguments]
        try:
            super().__init__(command, stderr=theirs, env=environment(), **options)
        finally:
            os.close(theirs)
        self._terminal = ours
        self._screen = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def screen(self) -> str:
        """Everything that it wrote to the terminal so far."""
        return self._screen.decode(errors="replace")

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # EIO: nobody has the other end open any more
                return
            if not data:
                return
            self._screen += data

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match of ``pattern`` on the screen."""

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None or re.search(pattern, self.screen), self.screen
            return re.search(pattern, self.screen)

        wait_until(found, lambda: f"{pattern!r} in {self.screen!r}")
        match = found()
        assert match is not None
        return match

    def wait_for_samples(self) -> None:
        """Until it has taken some."""
        self.wait_for(r"[1-9][\d,]* samples  ")

    def finish(self, number: signal.Signals = signal.SIGINT, *, lossless: bool = True) -> Recording:
        """End it with a signal and open what it recorded."""
        self.process.send_signal(number)
        assert self.wait() == 0, self.screen
        return self.opened(lossless=lossless)

    def opened(self, *, lossless: bool = True) -> Recording:
        """What it recorded, after its end."""
        self._reader.join(DEADLINE_S)
        return opened(self.output_path, lossless=lossless)

    def end(self) -> None:
        super().end()
        self._reader.join(DEADLINE_S)
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1


def record_while_it_runs(program: Started, live: Live) -> Recording:
    """What ``live`` records of a program that waits for a line before it runs to its end."""
    live.wait_for_samples()
    program.tell()
    assert program.wait() == 0
    return live.finish()


def record_tree(tree: Started, live: Live) -> tuple[Recording, list[list[str]]]:
    """What ``live`` records of the workload ``tree``, and what that says: PID, function, CPU time in ns."""
    live.wait_for(r"recording")
    live.wait_for(r" s  0 samples")
    tree.tell()
    truth = [line.split() for line in tree.output().splitlines()]
    assert live.wait() == 0, live.screen
    assert len(truth) == 3
    return live.opened(), truth


@dataclass(frozen=True)
class Frame:
    """One frame: ``function`` is None where no symbol covers it."""

    function: str | None
    module: str
    kind: str
    symbols: str


@dataclass(frozen=True)
class Sample:
    """One sample with all that the tables say of it; ``frames`` is leaf first."""

    ts_ns: int
    cpu: int
    event: str
    weight: int
    pid: int
    tid: int
    comm: str
    thread: str
    process_id: int
    end: str
    frames: tuple[Frame, ...]

    @property
    def functions(self) -> tuple[str | None, ...]:
        return tuple(frame.function for frame in self.frames)

    @property
    def user_functions(self) -> tuple[str | None, ...]:
        return tuple(frame.function for frame in self.frames if not is_kernel(frame))

    @property
    def in_user_mode(self) -> bool:
        return bool(self.frames) and not is_kernel(self.frames[0])

    def has(self, function: str) -> bool:
        return function in self.functions


def is_kernel(frame: Frame) -> bool:
    return frame.kind in ("kernel", "kernel_module", "bpf")


def read_samples(recording: Recording, where: str = "true") -> list[Sample]:
    """The samples for which the SQL condition holds (columns of samples, threads ``t``, processes ``p``)."""
    frame_rows = recording.rows(
        "SELECT frame_id, function, path, kind, symbols FROM frames JOIN modules USING (module_id)"
    )
    frames = {frame_id: Frame(*rest) for frame_id, *rest in frame_rows}
    stack_rows = recording.rows('SELECT stack_id, frame_ids, "end" FROM stacks')
    stacks = {stack_id: (end, tuple(frames[i] for i in frame_ids)) for stack_id, frame_ids, end in stack_rows}
    rows = recording.rows(
        f"""SELECT s.ts_ns, s.cpu, s.event, s.weight, p.pid, t.tid, p.comm, t.comm, p.process_id, s.stack_id
            FROM samples s JOIN threads t USING (thread_id) JOIN processes p USING (process_id)
            WHERE {where} ORDER BY s.ts_ns"""
    )
    return [Sample(*rest, *stacks[stack_id]) for *rest, stack_id in rows]


def share(samples: Iterable[Sample], chosen: Callable[[Sample], bool]) -> float:
    """The part of the weight that lies in the chosen samples."""
    samples = list(samples)
    total = sum(sample.weight for sample in samples)
    assert total, "there are no samples"
    return sum(sample.weight for sample in samples if chosen(sample)) / total


def names(samples: Iterable[Sample]) -> set[str]:
    """Every function's name in the samples' stacks."""
    return {frame.function for sample in samples for frame in sample.frames if frame.function is not None}
