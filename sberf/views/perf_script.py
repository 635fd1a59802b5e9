"""Samples in the text layout of ``perf script``, which stackcollapse-perf.pl and speedscope read.

    postgres    4242/4243    [003]   512.034211:   10101010 cpu-clock:
    \t    7f3a1c0d2f1a __libc_recv (/usr/lib/x86_64-linux-gnu/libc.so.6)
    \t          4f2b10 secure_read (/usr/lib/postgresql/15/bin/postgres)

The layout is that of sample__fprintf_sym and perf_sample__fprintf_start in the kernel's
tools/perf.  Addresses are those of the table ``frames``, not of the process.
"""

from __future__ import annotations

from collections.abc import Iterator

from sberf.analysis.samples import AddressedFrame, Samples
from sberf.views.text import printable


def perf_script_lines(samples: Samples) -> Iterator[str]:
    """The lines of all samples; a blank one ends each sample."""
    bodies: dict[int, str] = {}
    comms: dict[str, str] = {}
    for ts_ns, cpu, comm, pid, tid, event, weight, stack in samples.samples:
        if stack not in bodies:
            bodies[stack] = "\n".join([*map(_frame_line, samples.stacks[stack]), ""])
        if comm not in comms:
            comms[comm] = printable(comm).strip() or "[unknown]"
        seconds, microseconds = divmod(ts_ns // 1000, 1_000_000)
        yield (
            f"{comms[comm]} {pid:7d}/{tid:<7d} [{cpu:03d}] {seconds:5d}.{microseconds:06d}: "
            f"{weight:10d} {printable(event)}: "
        )
        yield bodies[stack]


def _frame_line(frame: AddressedFrame) -> str:
    # speedscope drops a frame whose path has a space.
    where = "inlined" if frame.inlined else printable(frame.path).replace(" ", "\\x20")
    return f"\t{frame.address:16x} {printable(frame.name)} ({where})"
