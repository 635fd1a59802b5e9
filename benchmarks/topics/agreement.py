"""Do our stacks have the same frames as those of eu-stack (elfutils), on the same stopped thread?

A program is stopped with SIGSTOP at random times while its context switches are recorded: the last one
before the stop is the stop.  Then eu-stack unwinds the thread, by ptrace and with an unwinder of its own, and
all user frames are compared, as offsets in files.  In percent of the stops in which every frame that eu-stack
finds is the same (of 32-bit programs it loses the callers of main).
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from harness.programs import endless_programs
from harness.recorders import SBERF
from harness.results import Result, Setting

import sberf

LIMIT_PERCENT = 99.0
# eu-stack knows no code without call frames, which Java's is.
_LEFT_OUT = ("Java, frame pointers",)
_STATE_S = 5.0

Place = tuple[str, int]
"""A file's name and an offset in it, or `anon` and an address."""


class Stop(NamedTuple):
    """One stop: when, and the frames that eu-stack found, leaf first."""

    ts_ns: int
    frames: list[Place]


def measure(setting: Setting) -> Iterator[Result]:
    """One result a program."""
    with setting.directory() as directory:
        for name, command in endless_programs(directory):
            if name in _LEFT_OUT:
                continue
            recording = directory / "stops.data"
            pid, stops = _record_stops(recording, command, round(setting.seconds(120, 20)))
            same = _same(recording, pid, stops)
            yield Result(
                f"same frames as eu-stack, {name}",
                "%",
                100 * same / len(stops),
                target=f">= {LIMIT_PERCENT:g} %",
                ok=100 * same >= LIMIT_PERCENT * len(stops),
                note=f"{same} of {len(stops)} stops",
            )


def _record_stops(output: Path, command: list[str], count: int) -> tuple[int, list[Stop]]:
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as program:
        options = ["-e", "context-switches", "-c", "1", "--max-depth", "1024", "-p", str(program.pid)]
        recorder = subprocess.Popen([*SBERF, "record", *options, "-o", str(output)], stderr=quiet)
        try:
            time.sleep(2)  # both run; nothing depends on how long they have
            return program.pid, [_stop(program.pid) for _ in range(count)]
        finally:
            recorder.send_signal(signal.SIGINT)
            recorder.wait()
            program.kill()


def _stop(pid: int) -> Stop:
    time.sleep(random.uniform(0.005, 0.03))
    with _stopped(pid):
        ts_ns = time.monotonic_ns()
        done = subprocess.run(
            ["eu-stack", "-q", "-1", "-n", "0", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        maps = _code(pid)
    # #0  0x00007f3c8b2c1a3d
    addresses = [int(text, 16) for text in re.findall(r"^#\d+\s+0x([0-9a-f]+)", done.stdout, re.MULTILINE)]
    places = [_place(maps, address) for address in addresses]
    # Where it does not know that the thread begins, it goes on into what is no code.
    return Stop(ts_ns, list(takewhile(lambda place: place[0] != "unmapped", places)))


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + _STATE_S
        while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "T":
            if time.monotonic() > deadline:
                raise RuntimeError(f"process {pid} does not stop")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _code(pid: int) -> list[tuple[int, int, int, str]]:
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        # 7f3c8b28a000-7f3c8b3e0000 r-xp 00026000 fe:00 1441 /usr/lib/x86_64-linux-gnu/libc.so.6
        place, mode, offset, _, _, *path = line.split(None, 5)
        if "x" in mode:
            start, end = (int(text, 16) for text in place.split("-"))
            found.append((start, end, int(offset, 16), os.path.basename(path[0]) if path else "anon"))
    return found


def _place(maps: list[tuple[int, int, int, str]], address: int) -> Place:
    for start, end, offset, name in maps:
        if start <= address < end:
            return (name, address if name == "anon" else address - start + offset)
    return ("unmapped", address)


def _same(path: Path, pid: int, stops: list[Stop]) -> int:
    recording = sberf.open(path)
    rows = recording.rows(
        "SELECT frame_id, m.path, m.kind, address FROM frames JOIN modules m USING (module_id)"
    )
    frames: dict[int, Place] = {
        frame: ("anon" if kind in ("anon", "jit") else os.path.basename(module), address)
        for frame, module, kind, address in rows
        if kind not in ("kernel", "kernel_module", "bpf")
    }
    samples = recording.rows(
        "SELECT ts_ns, frame_ids FROM samples JOIN stacks USING (stack_id) JOIN threads USING (thread_id) "
        f"WHERE tid = {pid} ORDER BY ts_ns"
    )
    same = 0
    for stop in stops:
        ours = next((ids for ts_ns, ids in reversed(samples) if ts_ns < stop.ts_ns), [])
        found = [frames[frame] for frame in ours if frame in frames]
        agrees = len(stop.frames) > 0 and found[: len(stop.frames)] == stop.frames
        same += agrees
        if not agrees and os.environ.get("SBERF_DEBUG"):
            print(f"ours   {found}\neu-stack {stop.frames}", file=sys.stderr)
    return same
