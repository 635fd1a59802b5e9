"""Which samples a question is about, and how their code is named."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Filters:
    """Conditions that all must hold; an empty tuple or None means no condition.

    Args:
        pids, tids: Host process and thread IDs.
        comms: Process or thread names (exact, or globs with ``*?[``).
        containers: Containers' names, IDs or first 12 digits of IDs (exact or globs); ``[host]`` is all
            that is in none.
        dsos: Module base names or paths (exact or globs): any frame of the stack lies in one.
        symbols: Function names (exact or globs): any frame of the stack is one.
        cpus: CPU numbers.
        events: Event names.
        start_ns, stop_ns: CLOCK_MONOTONIC window [start, stop).
        inlines: Whether inlined calls are frames of their own, or part of the function that they lie in.
        demangle: Whether names are readable, or as the linker knows them.
    """

    pids: tuple[int, ...] = ()
    tids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    dsos: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    events: tuple[str, ...] = ()
    start_ns: int | None = None
    stop_ns: int | None = None
    inlines: bool = True
    demangle: bool = True
