"""Event names and modifiers, as perf spells them, to what perf_event_open(2) wants."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sberf.errors import UnsupportedError, UsageError

_HARDWARE, _SOFTWARE, _HW_CACHE, _RAW = 0, 1, 3, 4
_DEVICES = Path("/sys/bus/event_source/devices")

_NAMES: dict[str, tuple[int, int]] = {
    "cpu-clock": (_SOFTWARE, 0),
    "task-clock": (_SOFTWARE, 1),
    "page-faults": (_SOFTWARE, 2),
    "context-switches": (_SOFTWARE, 3),
    "cpu-migrations": (_SOFTWARE, 4),
    "minor-faults": (_SOFTWARE, 5),
    "major-faults": (_SOFTWARE, 6),
    "alignment-faults": (_SOFTWARE, 7),
    "emulation-faults": (_SOFTWARE, 8),
    "cgroup-switches": (_SOFTWARE, 11),
    "cycles": (_HARDWARE, 0),
    "instructions": (_HARDWARE, 1),
    "cache-references": (_HARDWARE, 2),
    "cache-misses": (_HARDWARE, 3),
    "branches": (_HARDWARE, 4),
    "branch-misses": (_HARDWARE, 5),
    "bus-cycles": (_HARDWARE, 6),
    "stalled-cycles-frontend": (_HARDWARE, 7),
    "stalled-cycles-backend": (_HARDWARE, 8),
    "ref-cycles": (_HARDWARE, 9),
}
_ALIASES = {
    "faults": "page-faults",
    "cs": "context-switches",
    "migrations": "cpu-migrations",
    "cpu-cycles": "cycles",
    "branch-instructions": "branches",
    "idle-cycles-frontend": "stalled-cycles-frontend",
    "idle-cycles-backend": "stalled-cycles-backend",
}
# enum perf_hw_cache_id, perf_hw_cache_op_id and perf_hw_cache_op_result_id of perf_event.h
_CACHES = ("L1-dcache", "L1-icache", "LLC", "dTLB", "iTLB", "branch", "node")
_CACHE_OPERATIONS = (("loads", "load"), ("stores", "store"), ("prefetches", "prefetch"))

_CLOCKS = ("cpu-clock", "task-clock")
# perf_swevent_start_hrtimer() in kernel/events/core.c rounds shorter periods up to this.
_MIN_CLOCK_PERIOD_NS = 10_000
MAX_EVENTS = 8  # programs in bpf/cpu.bpf.c


@dataclass(frozen=True)
class Event:
    """One event to sample, with the fields of ``native/src/capture/options.rs``.

    ``unit`` is ``ns`` for clocks, else ``count``; exactly one of ``frequency_hz`` and ``period`` is set.
    """

    event: str
    unit: str
    type: int
    config: int
    frequency_hz: int | None
    period: int | None
    user: bool = True
    kernel: bool = True
    precise: int = 0
    exclude_idle: bool = True
    exclude_hypervisor: bool = False
    exclude_host: bool = False
    exclude_guest: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain values for the native module."""
        return asdict(self)


def parse_events(
    text: str,
    *,
    frequency_hz: int | None,
    period: int | None,
    user_only: bool = False,
    kernel_only: bool = False,
    idle: bool = False,
) -> list[Event]:
    """The events of a ``-e`` list such as ``cpu-clock:u,page-faults``.

    Args:
        text: Names with modifiers, separated by commas.
        frequency_hz: Samples a second, or None when ``period`` is given.
        period: Events between two samples (nanoseconds for clocks).
        user_only, kernel_only: Leave out the other mode, whatever the modifiers say.
        idle: Sample the idle task too.

    Raises:
        UsageError: An unknown name or modifier, or too many events.
        UnsupportedError: A PMU or event that this machine does not have.
    """
    names = [name.strip() for name in _split(text)]
    if not all(names):
        raise UsageError(f"'{text}' lacks the name of an event", "for example -e cpu-clock,page-faults")
    if len(names) > MAX_EVENTS:
        raise UsageError(f"{len(names)} events are too many; at most {MAX_EVENTS} go into one recording")
    events = [_event(name, frequency_hz, period, user_only, kernel_only, idle) for name in names]
    if len({event.event for event in events}) != len(events):
        raise UsageError(f"'{text}' names an event twice")
    return events


def _split(text: str) -> list[str]:
    """Split at commas outside of ``pmu/a=1,b=2/``."""
    return re.split(r",(?=(?:[^/]*/[^/]*/)*[^/]*$)", text)


def _event(
    name: str, frequency_hz: int | None, period: int | None, user_only: bool, kernel_only: bool, idle: bool
) -> Event:
    base, modifiers = _split_modifiers(name)
    canonical = _ALIASES.get(base, base)
    type_, config = _resolve(canonical)
    clock = canonical in _CLOCKS
    if clock and period is not None and period < _MIN_CLOCK_PERIOD_NS:
        raise UsageError(
            f"a period of {period} ns is too short for {canonical}",
            f"the kernel's timer takes at least {_MIN_CLOCK_PERIOD_NS} ns",
        )
    named = set(modifiers) & set("ukh")
    user, kernel = (not named or "u" in named), (not named or "k" in named)
    hosts = set(modifiers) & set("GH")
    return Event(
        event=canonical + (f":{modifiers}" if modifiers else ""),
        unit="ns" if clock else "count",
        type=type_,
        config=config,
        frequency_hz=frequency_hz if period is None else None,
        period=period,
        user=user and not kernel_only,
        kernel=kernel and not user_only,
        precise=3 if "P" in modifiers else modifiers.count("p"),
        exclude_idle=not idle or "I" in modifiers,
        exclude_hypervisor=bool(named) and "h" not in named,
        exclude_host=hosts == {"G"},
        exclude_guest=hosts == {"H"},
    )


def _split_modifiers(name: str) -> tuple[str, str]:
    base, colon, modifiers = name.rpartition(":")
    if not colon:
        # A PMU's modifiers follow the last slash directly.
        match = re.fullmatch(r"([^/]+/[^/]*/)([a-zA-Z]*)", name)
        base, modifiers = (match[1], match[2]) if match else (name, "")
    unknown = set(modifiers) - set("ukhGHIpP")
    if unknown or (colon and not modifiers) or modifiers.count("p") > 3:
        raise UsageError(
            f"'{name}' has an unknown modifier",
            "u user, k kernel, h hypervisor, G guest, H host, I no idle, p precise (up to ppp)",
        )
    return base, modifiers


def _resolve(name: str) -> tuple[int, int]:
    """``(type, config)`` of struct perf_event_attr."""
    if name in _NAMES:
        return _NAMES[name]
    if re.fullmatch(r"r[0-9a-fA-F]+", name):
        return _RAW, int(name[1:], 16)
    if name.endswith("/") and "/" in name[:-1]:
        return _resolve_pmu(*name[:-1].split("/", 1))
    cache = _cache_events()
    if name in cache:
        return _HW_CACHE, cache[name]
    known = [*_NAMES, *_ALIASES, *cache]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_NAMES)}, and cache events"
    raise UsageError(f"unknown event '{name}'", hint)


def _cache_events() -> dict[str, int]:
    events = {}
    for cache_id, cache in enumerate(_CACHES):
        for operation_id, (plural, singular) in enumerate(_CACHE_OPERATIONS):
            events[f"{cache}-{plural}"] = cache_id | operation_id << 8
            events[f"{cache}-{singular}-misses"] = cache_id | operation_id << 8 | 1 << 16
    return events


def _resolve_pmu(pmu: str, terms: str) -> tuple[int, int]:
    """``cpu`` and ``event=0x3c,umask=0x1`` or an alias, through sysfs."""
    device = _DEVICES / pmu
    if "/" in pmu or pmu in ("", ".", "..") or not device.is_dir():
        there = ", ".join(sorted(path.name for path in _DEVICES.iterdir())) if _DEVICES.is_dir() else "none"
        raise UnsupportedError(f"this machine has no PMU '{pmu}'", f"it has: {there}")
    alias = device / "events" / terms
    if re.fullmatch(r"[\w.-]+", terms) and alias.is_file():
        terms = alias.read_text().strip()
    config = 0
    for term in filter(None, terms.split(",")):
        field, _, value = term.partition("=")
        config |= _place(device, field, _number(value or "1", term))
    return int((device / "type").read_text()), config


def _place(device: Path, field: str, value: int) -> int:
    """Shift ``value`` into the bits that ``format/FIELD`` names, such as ``config:0-7,32-35``."""
    if field == "config":
        return value
    layout = device / "format" / field
    if not re.fullmatch(r"\w+", field) or not layout.is_file():
        raise UsageError(f"PMU '{device.name}' has no field '{field}'", f"see {device}/format")
    register, _, spans = layout.read_text().strip().partition(":")
    if register != "config":
        raise UnsupportedError(
            f"field '{field}' of PMU '{device.name}' lies in {register}, which is not supported"
        )
    placed, used = 0, 0
    for span in spans.split(","):
        first, _, last = span.partition("-")
        width = int(last or first) - int(first) + 1
        placed |= (value >> used & (1 << width) - 1) << int(first)
        used += width
    if value >> used:
        raise UsageError(f"{field}={value:#x} does not fit its {used} bits")
    return placed


def _number(text: str, term: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(f"'{term}' holds no number") from None


def fall_back(event: Event, say: Callable[[str], None]) -> Event:
    """``event``, or cpu-clock in the place of ``cycles`` where the machine has no such counter.

    Args:
        event: What was asked for.
        say: Gets a sentence when it is replaced.

    Raises:
        UnsupportedError: Another hardware event that the machine does not have.
    """
    from sberf._native import event_opens

    if event.type == _SOFTWARE or event_opens(event.type, event.config):
        return event
    name, _, modifiers = event.event.partition(":")
    if name != "cycles":
        raise UnsupportedError(
            f"this machine has no event '{event.event}'",
            "`sberf doctor` shows whether there are hardware counters; cpu-clock is always there",
        )
    say("this machine has no cycles counter; taking cpu-clock instead")
    clock = f"cpu-clock:{modifiers}" if modifiers else "cpu-clock"
    period = event.period and max(event.period, _MIN_CLOCK_PERIOD_NS)
    type_, config = _NAMES["cpu-clock"]
    return replace(event, event=clock, unit="ns", type=type_, config=config, period=period, precise=0)
