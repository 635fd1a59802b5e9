"""sberf: where did the time go, and who was it waiting for?

``sberf.record(...)`` captures, ``with sberf.session(...)`` does so around a block of code, and
``sberf.open(path)`` reads a recording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sberf.errors import SberfError

if TYPE_CHECKING:
    from sberf.capture.session import Session, record, session
    from sberf.recording.recording import Recording
    from sberf.recording.recording import open_recording as open

__version__ = "0.1.0"
__all__ = ["Recording", "SberfError", "Session", "__version__", "open", "record", "session"]

# Imported on first use: `sberf --help` must not pay for DuckDB or the native module.
_LAZY = {
    "open": ("sberf.recording.recording", "open_recording"),
    "Recording": ("sberf.recording.recording", "Recording"),
    "record": ("sberf.capture.session", "record"),
    "session": ("sberf.capture.session", "session"),
    "Session": ("sberf.capture.session", "Session"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module, attribute = _LAZY[name]
    return getattr(importlib.import_module(module), attribute)
