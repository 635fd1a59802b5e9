"""The Rust core.  Only capture/ and recording/ import it."""

from typing import Any

class NativeError(Exception):
    """kind is one of usage, target, permission, unsupported, capture, recording."""

    kind: str
    message: str
    hint: str | None

class Capture:
    """One capture: opened (attached, not yet counting) when made.

    Options (a dict, see sberf/capture/options.py) choose targets and events.
    """

    def __init__(self, options: dict[str, Any]) -> None: ...
    def start(self) -> None:
        """Enable the events; lets a command (option "command") run."""
    def stats(self) -> dict[str, int]:
        """samples, processes, lost, bytes, buffer_percent, first_sample_ns, cpu_ns."""
    def error(self) -> str | None:
        """Why the drain thread had to stop early (a full disk), or None."""
    def command_pid(self) -> int | None: ...
    def reap_command(self) -> int | None:
        """The command's exit status as subprocess gives it, None while it runs."""
    def stop(self) -> None:
        """Disable, drain, detach.  Idempotent."""
    def finalize(self, output: str) -> dict[str, Any]:
        """Write the recording to directory `output`; return its meta.json content."""

def recover(spool: str, output: str) -> dict[str, Any]:
    """Finish the capture whose process died; return meta.json's content."""

def kernel_features() -> dict[str, Any]:
    """What bpf() and perf_event_open() can do here, by trying: name -> true or the errno's name."""
