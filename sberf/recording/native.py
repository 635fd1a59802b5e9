"""Turns the Rust core's errors into the exception tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sberf._native import NativeError
from sberf.errors import (
    CaptureError,
    PermissionDenied,
    RecordingError,
    SberfError,
    TargetError,
    UnsupportedError,
    UsageError,
)

_KINDS: dict[str, type[SberfError]] = {
    "usage": UsageError,
    "target": TargetError,
    "permission": PermissionDenied,
    "unsupported": UnsupportedError,
    "capture": CaptureError,
    "recording": RecordingError,
}


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise what the core raises inside as a subclass of SberfError."""
    try:
        yield
    except NativeError as error:
        kind, message, hint = error.args
        raise _KINDS[kind](message, hint) from None
