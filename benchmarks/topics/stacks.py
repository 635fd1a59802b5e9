"""How many stacks are complete, strictly: the outermost frame is the thread's entry.

Programs that were built as distributions and compilers build them, without frame pointers, are sampled at 1
kHz for 5 s from before their first instruction; and a gcc build at 5 kHz, whose processes live for 20 to
200 ms.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from harness.loads import Build, Pgbench
from harness.programs import busy_servers, endless_programs
from harness.recorders import SBERF, Sberf
from harness.results import Result, Setting

import sberf
from sberf.analysis import stack_quality

LIMIT_PERCENT = 99.5
BUILD_LIMIT_PERCENT = 98.0


def measure(setting: Setting) -> Iterator[Result]:
    """One result a program."""
    with setting.directory() as directory:
        for name, command in endless_programs(directory):
            recording = directory / "program.data"
            _record(recording, ["--", *command], setting.seconds(5, 1))
            yield _result(name, recording, LIMIT_PERCENT)
        with busy_servers(directory) as servers:
            for name, pid in servers:
                _record(recording, ["-p", str(pid)], setting.seconds(5, 1))
                yield _result(name, recording, LIMIT_PERCENT)
    for kind, limit in ((Build, BUILD_LIMIT_PERCENT), (Pgbench, LIMIT_PERCENT)):
        with setting.directory() as directory, kind(directory) as load, load.background():
            recorder = Sberf(directory, 5000)
            with recorder:
                time.sleep(setting.seconds(10, 2))
            yield _result(load.name, recorder.output, limit)


def _record(output: Path, target: list[str], seconds: float) -> None:
    options = ["-F", "1000", "-d", str(seconds), "-o", str(output)]
    quiet = subprocess.DEVNULL
    subprocess.run([*SBERF, "record", *options, *target], stdout=quiet, stderr=quiet, check=False)


def _result(name: str, path: Path, limit: float) -> Result:
    quality = stack_quality(sberf.open(path))
    percent = 100 * quality.complete_samples / quality.total_samples
    early = sorted((row for row in quality.rows if row.module), key=lambda row: -row.samples)[:2]
    note = ", ".join(f"{row.end} in {row.module} {row.samples}" for row in early)
    return Result(
        f"complete stacks, {name}",
        "%",
        percent,
        target=f">= {limit:g} %",
        ok=percent >= limit,
        note=f"of {quality.total_samples:,}; {note}" if note else f"of {quality.total_samples:,}",
    )
