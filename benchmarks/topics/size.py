"""Bytes written per sample: the finished recording, the spool at its largest, and perf.data.

The same load under sberf and then under perf, both at 10 kHz on all CPUs; each one's bytes are divided
by its own number of samples.  perf also samples idle CPUs, which sberf leaves out; the loads keep the
CPUs busy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from harness.loads import Build, FullLoad, Load
from harness.recorders import Perf, Sberf
from harness.results import Result, Setting

FREQUENCY_HZ = 10_000


def measure(setting: Setting) -> Iterator[Result]:
    """The recording and the spool, for each load."""
    for kind in (FullLoad, Build):
        with setting.directory() as directory, kind(directory) as load:
            yield from _measure(setting, load)


def _measure(setting: Setting, load: Load) -> Iterator[Result]:
    with setting.directory() as directory, load.background():
        sberf, perf = Sberf(directory, FREQUENCY_HZ), Perf(directory, FREQUENCY_HZ)
        for recorder in (sberf, perf):
            with recorder:
                time.sleep(setting.seconds(20, 3))
        samples, perf_samples = sberf.sample_count(), perf.sample_count()
        written, spooled = sberf.output_bytes() / samples, sberf.spool_peak_bytes / samples
        perf_written = perf.output_bytes() / perf_samples
        lost, perf_lost = sberf.lost(), perf.lost()
    note = f"{samples} samples, {lost} lost; perf {perf_samples}, {perf_lost} lost"
    for what, value in (
        ("recording", written),
        ("spool", spooled),
        ("recording and spool", written + spooled),
    ):
        yield Result(
            f"bytes per sample, {what}, {load.name}",
            "B",
            value,
            perf=perf_written,
            target="<= 1/5 of perf",
            ok=value <= perf_written / 5,
            note=note,
        )
