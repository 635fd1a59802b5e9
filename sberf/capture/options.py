"""All that one capture needs to know, and its checks."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sberf import __version__
from sberf.capture.events import Event
from sberf.capture.targets import Target, escape_bytes, online_cpus
from sberf.errors import CaptureError, UsageError
from sberf.units import format_bytes

DEFAULT_FREQUENCY_HZ = 99
DEFAULT_DEPTH = 127
MAX_USER_DEPTH = 1024  # SBERF_MAX_USER_FRAMES of bpf/event.h
MAX_KERNEL_DEPTH = 127  # kernel.perf_event_max_stack, and SBERF_MAX_KERNEL_FRAMES
MIN_BUFFER_BYTES = 4096
MAX_BUFFER_BYTES = 4 << 30
_RING_BYTES_PER_CPU = 2 << 20
_RING_BYTES_RANGE = (8 << 20, 64 << 20)
_MAX_SAMPLE_RATE = Path("/proc/sys/kernel/perf_event_max_sample_rate")


@dataclass(frozen=True)
class Options:
    """What to capture and where to write it.

    Args:
        target: What to record.
        events: The events to sample.
        output: The recording's directory.
        duration_ns: End after so long; None: until stopped, or the target ends.
        delay_ns: Begin so long after the start.
        max_depth: Frames of a stack at most; kernel parts have at most 127.
        use_tables: Unwind user stacks by the tables of each file's call frames; else by frame pointer.
        buffer_bytes: All ring buffers together; None: by the number of CPUs.
    """

    target: Target
    events: tuple[Event, ...]
    output: Path
    duration_ns: int | None = None
    delay_ns: int = 0
    max_depth: int = DEFAULT_DEPTH
    use_tables: bool = True
    buffer_bytes: int | None = None
    command_line: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv))

    def __post_init__(self) -> None:
        if not 1 <= self.max_depth <= MAX_USER_DEPTH:
            raise UsageError(f"--max-depth {self.max_depth} is not between 1 and {MAX_USER_DEPTH}")
        size = self.buffer_bytes
        if size is not None and not MIN_BUFFER_BYTES <= size <= MAX_BUFFER_BYTES:
            raise UsageError(
                f"a buffer of {format_bytes(size)} is not between {format_bytes(MIN_BUFFER_BYTES)} "
                f"and {format_bytes(MAX_BUFFER_BYTES)}"
            )

    @property
    def ring_bytes(self) -> int:
        """The size of all ring buffers together."""
        if self.buffer_bytes is not None:
            return self.buffer_bytes
        smallest, largest = _RING_BYTES_RANGE
        return min(max(_RING_BYTES_PER_CPU * len(online_cpus()), smallest), largest)

    def as_json(self, spool: Path) -> str:
        """The text that ``sberf._native.Capture`` takes.

        Raises:
            TargetError: A cgroup of the target does not exist any more.
        """
        return json.dumps(
            {
                "spool": str(spool),
                "sberf_version": __version__,
                "command_line": escape_bytes(self.command_line),
                "host": describe_host(),
                "target": self.target.as_json(),
                "sources": [event.as_json() for event in self.events],
                "max_user_frames": self.max_depth,
                "max_kernel_frames": min(self.max_depth, MAX_KERNEL_DEPTH),
                "use_tables": self.use_tables,
                "buffer_bytes": self.ring_bytes,
                "max_sample_rate": max_sample_rate(),
                "delayed": self.delay_ns > 0,
                "owner": invoking_user(),
            }
        )


def check_frequency(frequency_hz: int, *, clamp: bool) -> int:
    """The frequency to use: the kernel's cap when ``clamp`` accepts it.

    Raises:
        UsageError: Not positive, or over kernel.perf_event_max_sample_rate.
    """
    if frequency_hz < 1:
        raise UsageError(f"a frequency of {frequency_hz} Hz takes no samples")
    cap = max_sample_rate()
    if cap is None or frequency_hz <= cap:
        return frequency_hz
    if clamp:
        return cap
    raise UsageError(
        f"{frequency_hz} Hz is over the kernel's cap of {cap} Hz (kernel.perf_event_max_sample_rate)",
        f"--clamp takes {cap} Hz instead; "
        f"`sysctl kernel.perf_event_max_sample_rate={frequency_hz}` lifts the cap",
    )


def max_sample_rate() -> int | None:
    """kernel.perf_event_max_sample_rate in Hz, or None where it cannot be read."""
    try:
        return int(_MAX_SAMPLE_RATE.read_text())
    except (OSError, ValueError):
        return None


def invoking_user() -> tuple[int, int] | None:
    """User and group ID of the user behind sudo, or None."""
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() != 0 or not uid.isdecimal() or not gid.isdecimal():
        return None
    return int(uid), int(gid)


def describe_host() -> dict[str, Any]:
    """``meta.json``'s ``host``."""
    nodes = Path("/sys/devices/system/node")
    numa_nodes = [int(path.name[4:]) for path in nodes.glob("node[0-9]*")] if nodes.is_dir() else []
    try:
        cpus = online_cpus()
    except OSError as error:
        raise CaptureError(
            f"cannot read which CPUs are online: {error.strerror}", "is /sys mounted?"
        ) from None
    return {
        "hostname": platform.node(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "cpus": cpus,
        "numa_nodes": sorted(numa_nodes) or [0],
    }
