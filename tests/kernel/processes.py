"""Processes of the tests: waited for with a deadline, and ended with the test."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0
_POLL_S = 0.02


def wait_until(
    condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = DEADLINE_S
) -> None:
    """Return once ``condition()`` is true; fail saying ``what`` when it is not so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(_POLL_S)


class Started:
    """A running process in a session of its own, talked to by lines."""

    def __init__(self, argv: Sequence[str | Path], **options: Any) -> None:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True} | options
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [os.fspath(word) for word in argv], **options
        )
        self.argv = argv
        self._unread = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """Its next line of output."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + DEADLINE_S
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                assert selector.select(max(deadline - time.monotonic(), 0)), f"{self.argv}: no line in time"
                data = os.read(descriptor, 65536)
                assert data, f"{self.argv} ended after {self._unread!r}"
                self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def lines_until(self, last: str) -> list[str]:
        """Its lines before the line ``last``."""
        lines: list[str] = []
        while (line := self.line()) != last:
            lines.append(line)
        return lines

    def tell(self, line: str = "go") -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def wait(self, seconds: float = DEADLINE_S) -> int:
        """Its exit status."""
        return self.process.wait(seconds)

    def output(self) -> str:
        """All that it says until its end."""
        assert self.process.stdout is not None
        text = self._unread + self.process.stdout.read()
        self._unread = b""
        return text.decode()

    def end(self) -> None:
        """Kill it and what it started in its session; idempotent."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Processes:
    """Those that one test started."""

    def __init__(self) -> None:
        self._started: list[Started] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for started in reversed(self._started):
            started.end()

    def start(self, *argv: str | Path, **options: Any) -> Started:
        """Start ``argv``; keyword arguments go to Popen."""
        return self.add(Started(argv, **options))

    def add(self, started: Started) -> Started:
        """Have ``started`` ended with the rest."""
        self._started.append(started)
        return started
