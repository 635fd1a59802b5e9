"""The shares of a program that spends 70 % and 30 % of its time in two functions, at 99 Hz and at 10 kHz.

The load alternates between the two in rounds of random length around 1 ms and measures both with its own
CPU clock; the error is the difference between sberf's share (samples of ``seventy`` in those of both, 10
s of recording) and that truth, in percentage points, the median over the rounds.  Chance alone gives at
99 Hz a standard deviation of 1.5 points.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator

from harness.loads import FullLoad
from harness.recorders import Perf, Sberf
from harness.results import Result, Setting, spread

LIMITS_POINTS = {99: 3.0, 10_000: 0.5}


def measure(setting: Setting) -> Iterator[Result]:
    """One result a frequency."""
    with setting.directory() as directory, FullLoad(directory) as load:
        assert isinstance(load, FullLoad)
        for frequency_hz, limit in LIMITS_POINTS.items():
            sberf, perf = [], []
            for _ in range(setting.rounds):
                share, truth = _record(setting, load, frequency_hz, Sberf)
                sberf.append(100 * abs(share - truth))
                share, truth = _record(setting, load, frequency_hz, Perf)
                perf.append(100 * abs(share - truth))
            yield Result(
                f"70/30 split at {frequency_hz} Hz over 10 s, error",
                "points",
                statistics.median(sberf),
                perf=statistics.median(perf),
                target=f"<= {limit:g}",
                ok=max(sberf) <= limit,
                note=f"{spread(sberf)}; ok: all of them",
            )


def _record(
    setting: Setting, load: FullLoad, frequency_hz: int, kind: type[Sberf] | type[Perf]
) -> tuple[float, float]:
    """The measured share of ``seventy``, and the true one."""
    with setting.directory() as directory:
        recorder = kind(directory, frequency_hz)
        with recorder:
            split = load.split(setting.seconds(10, 3))
        counts = (
            _sberf_counts(recorder)
            if isinstance(recorder, Sberf)
            else _perf_counts(recorder, load, split.pid)
        )
        return counts["seventy"] / (counts["seventy"] + counts["thirty"]), split.share


def _sberf_counts(recorder: Sberf) -> Counter[str]:
    import sberf

    with sberf.open(recorder.output) as recording:
        rows = recording.rows(
            "SELECT function, count(*) FROM samples JOIN stacks USING (stack_id)"
            " JOIN frames ON frames.frame_id = frame_ids[1] GROUP BY function"
        )
    return Counter(dict(rows))


def _perf_counts(recorder: Perf, load: FullLoad, pid: int) -> Counter[str]:
    return Counter(load.function_at(sample.ip) for sample in recorder.data.samples if sample.pid == pid)
