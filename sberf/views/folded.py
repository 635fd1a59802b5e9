"""Folded stacks, one a line, as flamegraph.pl and many others read them: ``comm;main;work 42``.

As stackcollapse-perf.pl writes them: the thread's name first, with ``_`` for spaces, then the functions
from the outermost on; a semicolon within a name becomes a colon.  The number is the weight.
"""

from __future__ import annotations

from collections.abc import Iterator

from sberf.analysis.stack_counts import StackCounts
from sberf.views.text import printable


def folded_lines(counts: StackCounts, *, samples: bool = False) -> Iterator[str]:
    """A line for each stack, in the order of the text.

    Args:
        counts: The stacks, counted ``by_comm``.
        samples: Whether to count samples instead of weight.
    """
    names = [_name(frame.name) for frame in counts.frames]
    lines = []
    for stack in counts.stacks:
        comm = _name(stack.comm or "[unknown]").replace(" ", "_")
        path = ";".join([comm, *(names[i] for i in stack.frames)])
        lines.append(f"{path} {stack.samples if samples else stack.weight}")
    lines.sort()
    yield from lines


def _name(name: str) -> str:
    return printable(name).replace(";", ":")
