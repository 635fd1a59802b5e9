"""sberf and perf as recorders of the same things, started and ended the same way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from harness import perf_data
from harness.perf_data import PerfData

# Not into ~/.debug: a benchmark leaves nothing behind.
PERF = [shutil.which("perf") or "/usr/bin/perf", "--buildid-dir", "/nonexistent"]
_START_S = 60.0
_END_S = 300.0


class RecorderFailed(Exception):
    """A recorder ended too early, or with an error; the message holds what it printed."""


class Recorder:
    """A recorder of all CPUs, as a context manager: records inside the block.

    Args:
        directory: Where its output goes.
        frequency_hz: Samples a second.
    """

    name: ClassVar[str]

    def __init__(self, directory: Path, frequency_hz: int, event: str = "cpu-clock") -> None:
        self.directory = directory
        self.frequency_hz = frequency_hz
        self.event = event
        self.output = directory / f"{self.name}.data"
        self.spawned_ns = 0  # CLOCK_MONOTONIC, just before the process was made
        self.asked_to_end_ns = 0
        self.ended_ns = 0
        self._log = directory / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Recorder:
        self.start()
        self._until_recording()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Of the recording process."""
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        """Its command line."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the process."""
        with self._log.open("wb") as log:
            self.spawned_ns = time.monotonic_ns()
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                pass_fds=self._pass_fds(),
            )  # fmt: skip

    def end(self) -> None:
        """Interrupt the process, as Ctrl-C does, and wait for its end."""
        if self._process is None or self._process.returncode is not None:
            return
        self.asked_to_end_ns = time.monotonic_ns()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)
        self.wait()

    def wait(self) -> None:
        """Wait for the process to end by itself.

        Raises:
            RecorderFailed: With an error.
        """
        assert self._process is not None
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise self._failed(f"did not end within {_END_S:g} s") from None
        self.ended_ns = time.monotonic_ns()
        if status not in (0, -signal.SIGINT):
            raise self._failed(f"ended with status {status}")

    def cpu_ns(self) -> int:
        """CPU time of all its threads so far, also of those that ended, user and system, nanoseconds."""
        # clock_getcpuclockid(3): the scheduler's clock of a whole process.
        return time.clock_gettime_ns((~self.pid << 3) | 2)

    def memory_bytes(self) -> dict[str, int]:
        """``Rss`` and ``Pss`` and more, from /proc/PID/smaps_rollup."""
        # Rss:               21080 kB
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return {
            key: 1024 * int(value) for key, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)
        }

    def sample_count(self) -> int:
        """Samples in the finished recording."""
        raise NotImplementedError

    def lost(self) -> int:
        """Records that were lost."""
        raise NotImplementedError

    def output_bytes(self) -> int:
        """Size of the finished recording."""
        return size_bytes(self.output)

    def first_sample_ns(self) -> int:
        """CLOCK_MONOTONIC time of the first sample of the finished recording."""
        raise NotImplementedError

    def _until_recording(self) -> None:
        deadline = time.monotonic() + _START_S
        while not self._is_recording():
            assert self._process is not None
            if self._process.poll() is not None:
                raise self._failed("ended before it recorded anything")
            if time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
                raise self._failed(f"recorded nothing for {_START_S:g} s")
            time.sleep(0.01)

    def _is_recording(self) -> bool:
        raise NotImplementedError

    def _pass_fds(self) -> tuple[int, ...]:
        return ()

    def _failed(self, how: str) -> RecorderFailed:
        return RecorderFailed(f"{self.name} {how}: {self._log.read_text(errors='replace').strip()}")


class Sberf(Recorder):
    """``sberf record -a``."""

    name = "sberf"

    def __init__(
        self, directory: Path, frequency_hz: int, event: str = "cpu-clock", *, options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(directory, frequency_hz, event)
        self.options = options
        self.spool_peak_bytes = 0

    def command(self) -> list[str]:
        """Its command line."""
        rate = ["-F", str(self.frequency_hz), "-e", self.event]
        return [*SBERF, "record", "-a", *rate, "-o", str(self.output), *self.options]

    def start(self) -> None:
        """Start the process, and watch its spool."""
        super().start()
        threading.Thread(target=self._watch_spool, daemon=True).start()

    @property
    def meta(self) -> dict[str, Any]:
        """The finished recording's ``meta.json``."""
        meta: dict[str, Any] = json.loads((self.output / "meta.json").read_text())
        return meta

    def sample_count(self) -> int:
        """Samples in the finished recording."""
        return int(self.meta["rows"]["samples"])

    def lost(self) -> int:
        """Records that were lost."""
        return int(self.meta["losses"]["dropped_records"])

    def first_sample_ns(self) -> int:
        """CLOCK_MONOTONIC time of the first sample of the finished recording."""
        import sberf

        with sberf.open(self.output) as recording:
            return int(recording.rows("SELECT min(ts_ns) FROM samples")[0][0])

    @property
    def _spool(self) -> Path:
        return self.output.with_name(f"{self.output.name}.spool-{self.pid}")

    def _is_recording(self) -> bool:
        return size_bytes(self._spool / "events") > 0

    def _watch_spool(self) -> None:
        while not self.ended_ns:
            self.spool_peak_bytes = max(self.spool_peak_bytes, size_bytes(self._spool))
            time.sleep(0.05)


class Perf(Recorder):
    """``perf record -a -g``; it starts disabled and is enabled through its control pipe, whose answer
    tells that it records."""

    name = "perf"

    def __init__(
        self, directory: Path, frequency_hz: int, event: str = "cpu-clock", *, at_once: bool = False
    ) -> None:
        """With ``at_once`` it records from its start, without the control pipe, and by sberf's clock."""
        super().__init__(directory, frequency_hz, event)
        self.at_once = at_once
        self._commands: tuple[int, int] = (-1, -1)
        self._answers: tuple[int, int] = (-1, -1)

    def command(self) -> list[str]:
        """Its command line."""
        rate = ["-e", self.event, "-F", str(self.frequency_hz)]
        # -B: perf 6.1's search for build-ids at its end aborts when it meets one of an unusual length.
        command = [*PERF, "record", *rate, "-a", "-g", "-B", "-o", str(self.output)]
        if self.at_once:
            return [*command, "-k", "CLOCK_MONOTONIC"]
        return [*command, "-D", "-1", "--control", f"fd:{self._commands[0]},{self._answers[1]}"]

    def start(self) -> None:
        """Start the process."""
        if self.at_once:
            return super().start()
        self._commands, self._answers = os.pipe(), os.pipe()
        super().start()
        os.close(self._commands[0])
        os.close(self._answers[1])
        os.write(self._commands[1], b"enable\n")
        os.set_blocking(self._answers[0], False)

    def wait(self) -> None:
        """Wait for the process to end by itself."""
        try:
            super().wait()
        finally:
            if not self.at_once:
                os.close(self._commands[1])
                os.close(self._answers[0])

    @cached_property
    def data(self) -> PerfData:
        """The finished perf.data."""
        return perf_data.read(self.output)

    def sample_count(self) -> int:
        """Samples in the finished recording."""
        return len(self.data.samples)

    def lost(self) -> int:
        """Records that were lost."""
        return self.data.lost

    def first_sample_ns(self) -> int:
        """CLOCK_MONOTONIC time of the first sample of the finished recording."""
        return min(sample.time_ns for sample in self.data.samples)

    def _is_recording(self) -> bool:
        try:
            return b"ack" in os.read(self._answers[0], 64)
        except BlockingIOError:
            return False

    def _pass_fds(self) -> tuple[int, ...]:
        return () if self.at_once else (self._commands[0], self._answers[1])


def _sberf_command() -> list[str]:
    script = Path(sys.executable).with_name("sberf")
    return [str(script)] if script.exists() else [sys.executable, "-m", "sberf"]


SBERF = _sberf_command()


def size_bytes(path: Path) -> int:
    """Of a file, or of all files in a directory; 0 when there is none."""
    total = 0
    with suppress(FileNotFoundError):
        if path.is_file():
            return path.stat().st_size
        for entry in path.rglob("*"):
            with suppress(FileNotFoundError):
                total += entry.stat().st_size
    return total
