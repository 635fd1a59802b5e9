"""Waits for the ends of processes and containers, and for signals."""

from __future__ import annotations

import os
import select
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType

# pidfd_open(2): PIDFD_THREAD, since Linux 6.9
_PIDFD_THREAD = os.O_EXCL


class Watch:
    """Wakes when one of some processes, threads or cgroups ends, or a signal arrives.

    Args:
        pids: Processes to watch.
        tids: Threads to watch; kernels before 6.9 cannot, there :meth:`all_gone` looks into /proc.
        cgroups: Directories of cgroups to watch; one ends with the last process in it and below it.
    """

    def __init__(self, pids: tuple[int, ...], tids: tuple[int, ...], cgroups: tuple[Path, ...] = ()) -> None:
        self._stack = ExitStack()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        self._stack.callback(self._close_descriptors)
        self._living: set[int | Path] = set()
        self._unwatched = set[int]()
        self._watches_something = bool(pids or tids or cgroups)
        if threading.current_thread() is threading.main_thread():
            reader = self._stack.enter_context(_signal_socket())
            self._selector.register(reader, selectors.EVENT_READ, reader)
        for pid in pids:
            self._add(pid, open_pidfd(pid))
        for tid in tids:
            descriptor = open_pidfd(tid, _PIDFD_THREAD)
            self._add(tid, descriptor)
            if descriptor is None:
                self._unwatched.add(tid)
        for cgroup in cgroups:
            self._add(cgroup, _pidfd_of_any(cgroup))

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def wait(self, seconds: float) -> list[int]:
        """Wait at most so long; return the processes and threads that ended.  Empty after a signal."""
        ended: list[int] = []
        for key, _ in self._selector.select(max(seconds, 0)):
            if isinstance(key.data, socket.socket):
                key.data.recv(4096)
                continue
            self._selector.unregister(key.fileobj)
            os.close(key.fd)
            self._living.discard(key.data)
            if isinstance(key.data, Path):
                self._add(key.data, _pidfd_of_any(key.data))
            else:
                ended.append(key.data)
        return ended

    def all_gone(self) -> bool:
        """Have all that were to be watched ended?  False when there was nothing to watch."""
        self._unwatched = {tid for tid in self._unwatched if os.path.exists(f"/proc/{tid}")}
        return self._watches_something and not self._living and not self._unwatched

    def _add(self, watched: int | Path, descriptor: int | None) -> None:
        if descriptor is not None:
            self._selector.register(descriptor, selectors.EVENT_READ, watched)
            self._living.add(watched)

    def _close_descriptors(self) -> None:
        for key in list(self._selector.get_map().values()):
            if not isinstance(key.data, socket.socket):
                os.close(key.fd)


def open_pidfd(pid: int, flags: int = 0) -> int | None:
    """A descriptor that becomes readable when the process ends, or None when there is none."""
    try:
        return os.pidfd_open(pid, flags)
    except OSError:
        return None


def _pidfd_of_any(cgroup: Path) -> int | None:
    """A descriptor of some process that lives in a cgroup or below it, or None when there is none.

    v1 hierarchies do not tell when the last process has gone.
    """
    for directory, _, _ in os.walk(cgroup):
        try:
            pids = (Path(directory) / "cgroup.procs").read_text().split()
        except OSError:  # it was removed, or is a threaded one
            continue
        for pid in pids:
            descriptor = open_pidfd(int(pid)) if pid != "0" else None
            if descriptor is not None and not _is_readable(descriptor):
                return descriptor
            if descriptor is not None:
                os.close(descriptor)
    return None


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call ``stop`` instead of ending the program, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _signal_socket() -> Iterator[socket.socket]:
    """A socket that becomes readable with every signal, so that a wait ends at once."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(previous)
