"""The only conversions between numbers and what people read or type."""

from __future__ import annotations

import re

from sberf.errors import UsageError

_TIME_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SIZE_UNITS = {"": 1, "b": 1, "k": 2**10, "kb": 2**10, "m": 2**20, "mb": 2**20, "g": 2**30, "gb": 2**30}


def parse_duration_ns(text: str, default_unit: str = "s") -> int:
    """Nanoseconds from ``"1.5s"``, ``"20ms"`` or a bare number in ``default_unit``.

    Raises:
        UsageError: The text is not a non-negative duration.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", text)
    unit = match and (match[2] or default_unit)
    if not match or unit not in _TIME_UNITS:
        raise UsageError(f"'{text}' is no duration", "write it like 10, 1.5s, 20ms or 2m")
    return round(float(match[1]) * _TIME_UNITS[unit])


def parse_size_bytes(text: str) -> int:
    """Bytes from ``"16M"``, ``"512K"`` or a bare number (binary units).

    Raises:
        UsageError: The text is not a non-negative size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", text.lower())
    if not match or match[2] not in _SIZE_UNITS:
        raise UsageError(f"'{text}' is no size", "write it like 4194304, 512K, 16M or 1G")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


def format_duration(duration_ns: float) -> str:
    """``1500000`` -> ``"1.50 ms"``."""
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if abs(duration_ns) >= scale:
            return f"{duration_ns / scale:.2f} {unit}"
    return f"{duration_ns:.0f} ns"


def format_bytes(size_bytes: float) -> str:
    """``1536`` -> ``"1.5 KiB"``."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(size_bytes) >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def format_count(count: int) -> str:
    """``1234567`` -> ``"1,234,567"``."""
    return f"{count:,}"


def format_percent(share: float) -> str:
    """``0.0123`` -> ``"1.23%"``."""
    return f"{100 * share:.2f}%"


def plural(count: int, noun: str) -> str:
    """``(1, "process")`` -> ``"1 process"``, ``(2000, "process")`` -> ``"2,000 processes"``."""
    suffix = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{format_count(count)} {noun}{suffix}"
