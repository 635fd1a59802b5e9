"""One capture from start to a finished recording."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from sberf._native import Capture
from sberf.capture.events import parse_events
from sberf.capture.options import (
    DEFAULT_DEPTH,
    DEFAULT_FREQUENCY_HZ,
    Options,
    check_frequency,
    max_sample_rate,
)
from sberf.capture.output import Output
from sberf.capture.targets import make_target
from sberf.capture.watch import Watch, open_pidfd, stopping_on_signals
from sberf.errors import CaptureError, SberfError, UsageError
from sberf.recording.native import translated_errors

if TYPE_CHECKING:
    from sberf.recording.recording import Recording

_TICK_S = 2.0
_COMMAND_END_S = 5.0
_FINISHING_NICENESS = -10


@dataclass(frozen=True)
class Stats:
    """What a running capture has so far.

    ``fill_percent`` is the fullest that the ring buffers were; ``first_sample_ns`` is CLOCK_MONOTONIC,
    0 before the first sample.
    """

    samples: int
    processes: int
    lost: int
    written_bytes: int
    fill_percent: int
    first_sample_ns: int


class Session:
    """A capture, as a context manager: recording begins on entry and ends on exit.

    >>> with sberf.session(pid=os.getpid()) as session:
    ...     work()
    >>> session.recording
    """

    def __init__(self, options: Options) -> None:
        """Attach to the targets; nothing is counted yet.

        Raises:
            UsageError, TargetError, PermissionDenied, UnsupportedError, CaptureError: See the message.
        """
        self.options = options
        self.exit_code: int | None = None
        self.meta: dict[str, Any] | None = None
        self._output = Output(options.output)
        self._stats: Stats | None = None
        self._stopped = False
        try:
            with translated_errors():
                self._capture = Capture(options.as_json(self._output.spool))
        except SberfError:
            shutil.rmtree(self._output.spool, ignore_errors=True)
            raise

    def __enter__(self) -> Session:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    @property
    def recording(self) -> Recording:
        """The finished recording.

        Raises:
            UsageError: The session has not ended yet.
        """
        from sberf.recording.recording import open_recording

        if self.meta is None:
            raise UsageError("the session has not ended yet", "leave the `with` block, or call finish()")
        return open_recording(self._output.path)

    @property
    def command_pid(self) -> int | None:
        """The traced command's process ID, if there is a command."""
        return self._capture.command_pid()

    def stats(self) -> Stats:
        """What the capture has so far; after its end, what it had."""
        return self._stats or Stats(**self._capture.stats())

    def start(self) -> None:
        """Begin to count; a command begins to run.

        Raises:
            TargetError: The command cannot be started.
        """
        try:
            with translated_errors():
                self._capture.start()
        except SberfError:
            self._abandon()
            raise

    def stop(self) -> None:
        """Make :meth:`wait` return; may be called from a signal handler or another thread."""
        self._stopped = True

    def wait(
        self, on_tick: Callable[[Stats, float], None] | None = None, interval_s: float = _TICK_S
    ) -> None:
        """Wait for what ends the capture: its duration, the end of its targets or its command,
        :meth:`stop`, or a full disk.

        Args:
            on_tick: Called about every ``interval_s`` with the stats and the elapsed seconds.
            interval_s: Seconds.
        """
        started = time.monotonic()
        duration_ns = self.options.duration_ns
        duration_s = float("inf") if duration_ns is None else duration_ns / 1e9
        with Watch(self._watched_pids(), self._watched_tids(), self._watched_cgroups()) as watch:
            while not self._stopped and self._capture.failure() is None:
                elapsed = time.monotonic() - started
                if on_tick is not None:
                    on_tick(self.stats(), elapsed)
                if elapsed >= duration_s or watch.all_gone():
                    return
                for pid in watch.wait(min(interval_s, duration_s - elapsed)):
                    if pid == self.command_pid:
                        self._reap(pid)
                        return  # the end of its command ends any capture, as with perf

    def run(
        self, on_tick: Callable[[Stats, float], None] | None = None, interval_s: float = _TICK_S
    ) -> dict[str, Any]:
        """Start (after the delay), wait, finish; return the recording's ``meta.json``.

        SIGINT and SIGTERM end the capture, when this is the main thread.
        """
        with stopping_on_signals(self.stop):
            self._delay()
            self.start()
            self.wait(on_tick, interval_s)
            return self.finish()

    def finish(self) -> dict[str, Any]:
        """Detach, write the recording, and return its ``meta.json``.  Idempotent.

        Raises:
            CaptureError: The recording could not be written; the spool is kept and named.
        """
        if self.meta is None:
            failure = self._capture.failure()
            warnings = [] if failure is None else [f"the capture stopped early: {failure}"]
            if (pid := self.command_pid) is not None and self.exit_code is None:
                self._end_command(pid, warnings)
            with translated_errors():
                self._capture.stop(self.exit_code, max_sample_rate(), warnings)
            self._stats = self.stats()
            self.meta = self._write()
        return self.meta

    def _delay(self) -> None:
        """Let the command run its first part unseen."""
        if not self.options.delay_ns:
            return
        with translated_errors():
            self._capture.release_command()
        with Watch((), ()) as watch:
            deadline = time.monotonic() + self.options.delay_ns / 1e9
            while not self._stopped and (left := deadline - time.monotonic()) > 0:
                watch.wait(left)

    def _write(self) -> dict[str, Any]:
        try:
            with translated_errors(), _preferred():
                meta: dict[str, Any] = json.loads(self._capture.finalize(str(self._output.temporary)))
            self._output.commit()
        except (SberfError, OSError) as error:
            raise CaptureError(
                f"cannot finish the recording: {error}",
                f"the samples are kept; finish them later with `sberf recover {self._output.spool}`",
            ) from None
        return meta

    def _abandon(self) -> None:
        """A capture that never began leaves nothing behind."""
        with translated_errors():
            self._capture.stop(None, None, [])
        if (pid := self.command_pid) is not None:
            os.waitpid(pid, 0)
        shutil.rmtree(self._output.spool, ignore_errors=True)

    def _watched_pids(self) -> tuple[int, ...]:
        pids = self.options.target.pids
        return pids if self.command_pid is None else (*pids, self.command_pid)

    def _watched_tids(self) -> tuple[int, ...]:
        return self.options.target.tids

    def _watched_cgroups(self) -> tuple[Path, ...]:
        """A container's end is that of its last process; a cgroup may wait for its first one."""
        target = self.options.target
        return target.cgroups if target.kind == "container" else ()

    def _reap(self, pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        self.exit_code = os.waitstatus_to_exitcode(status)

    def _end_command(self, pid: int, warnings: list[str]) -> None:
        """The capture is over and its command still runs: nobody else will end it."""
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            self.exit_code = os.waitstatus_to_exitcode(status)
            return
        os.kill(pid, signal.SIGTERM)
        warnings.append("the command was still running at the end of the capture and got SIGTERM")
        descriptor = open_pidfd(pid)
        if descriptor is not None:
            with selectors.DefaultSelector() as selector:
                selector.register(descriptor, selectors.EVENT_READ)
                if not selector.select(_COMMAND_END_S):
                    os.kill(pid, signal.SIGKILL)
            os.close(descriptor)
        self._reap(pid)


@contextmanager
def _preferred() -> Iterator[None]:
    """Run before other work, where we may: on a machine at full load the end would take several times as
    long, and whoever waits for it has asked for it.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)  # on Linux that of this thread, and of those that it starts
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(before, _FINISHING_NICENESS))
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def session(
    *,
    pid: int | Sequence[int] = (),
    tid: int | Sequence[int] = (),
    command: Sequence[str] = (),
    cpus: Sequence[int] = (),
    cgroup: str | None = None,
    container: str | Sequence[str] = (),
    freq: int = DEFAULT_FREQUENCY_HZ,
    events: str = "cpu-clock",
    duration: float | None = None,
    output: str | os.PathLike[str] = "sberf.data",
    max_depth: int = DEFAULT_DEPTH,
    call_graph: Literal["tables", "fp"] = "tables",
    inherit: bool = True,
) -> Session:
    """A session to use as a context manager; without a target, of all processes.

    Args:
        pid, tid: Process or thread IDs.
        command: A program and its arguments, which is started.
        cpus: CPU numbers.
        cgroup: Directory of a cgroup.
        container: Names, IDs or beginnings of IDs of running containers.
        freq: Samples a second, Hz.
        events: Names as for ``sberf record -e``.
        duration: Seconds after which :func:`record` ends.
        output: The recording's directory.
        max_depth: Frames of a stack at most.
        call_graph: How user stacks are unwound: by each file's call frames, or by frame pointer alone.
        inherit: Follow new child processes.

    Raises:
        UsageError, TargetError, PermissionDenied, UnsupportedError, CaptureError: See the message.
    """
    pids = (pid,) if isinstance(pid, int) else tuple(pid)
    tids = (tid,) if isinstance(tid, int) else tuple(tid)
    containers = (container,) if isinstance(container, str) else tuple(container)
    target = make_target(
        everything=not (pids or tids or command or cpus or cgroup or containers),
        pids=pids,
        tids=tids,
        cpus=tuple(cpus),
        cgroup=cgroup,
        containers=containers,
        argv=tuple(command),
        inherit=inherit,
    )
    frequency_hz = check_frequency(freq, clamp=False)
    return Session(
        Options(
            target=target,
            events=tuple(parse_events(events, frequency_hz=frequency_hz, period=None)),
            output=Path(output),
            duration_ns=None if duration is None else round(duration * 1e9),
            max_depth=max_depth,
            use_tables=call_graph == "tables",
        )
    )


def record(**arguments: Any) -> Recording:
    """Record until ``duration``, or the end of the command, processes or containers; return the recording.

    Takes the arguments of :func:`session`.

    >>> sberf.record(pid=812, freq=999, duration=5)

    Raises:
        UsageError: Nothing would ever end the recording; else as :func:`session`.
    """
    ends = ("duration", "command", "pid", "tid", "container")
    if not any(arguments.get(name) for name in ends):
        hint = "give a duration, a command, a process or a container"
        raise UsageError("nothing would end the recording", hint)
    capture = session(**arguments)
    capture.run()
    return capture.recording
