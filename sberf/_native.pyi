"""The Rust core.  Only capture/ and recording/ import it.  JSON goes in and out as text."""

from pathlib import Path
from typing import final

__all__ = [
    "Capture",
    "NativeError",
    "event_opens",
    "kernel_features",
    "recover",
    "running_containers",
    "symbolize",
]

class NativeError(Exception):
    """``args`` are (kind, message, hint); kind is usage, target, permission, unsupported, capture or
    recording."""

@final
class Capture:
    """One capture: opened (attached, not yet counting) when made."""

    def __new__(cls, options: str) -> Capture:
        """``options`` is the JSON that sberf/capture/options.py writes."""

    def command_pid(self) -> int | None:
        """The traced command's process ID, if there is a command."""

    def release_command(self) -> None:
        """Let the command run while the events stay disabled."""

    def start(self) -> None:
        """Enable the events, then let the command run."""

    def stats(self) -> dict[str, int]:
        """samples, processes, lost, written_bytes, fill_percent, first_sample_ns."""

    def failure(self) -> str | None:
        """Why the drain thread had to stop early (a full disk), or None."""

    def stop(self, exit_code: int | None, max_sample_rate: int | None, warnings: list[str]) -> None:
        """Disable, drain, detach, and complete the spool.  Idempotent."""

    def finalize(self, output: str) -> str:
        """Write the recording to the new directory ``output``; return its meta.json."""

def recover(spool: str, output: str) -> str:
    """Finish the capture whose process died; return meta.json."""

def symbolize(recording: str, debug_dirs: list[str]) -> str:
    """Name a recording's frames again; return the counts before and after, and naming_ns."""

def event_opens(kind: int, config: int) -> bool:
    """Does perf_event_open() take this event for the calling thread?"""

def running_containers() -> list[tuple[str, str | None, Path]]:
    """The containers that have a process: (ID, name if known, directory of the outermost cgroup)."""

def kernel_features() -> list[tuple[str, int | None]]:
    """What bpf() and perf_event_open() can do here, by trying: (name, None or the errno)."""
