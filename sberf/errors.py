"""The whole exception tree.

Every mistake that a user can make or meet becomes one of these; ``sberf.__main__`` is the only
place that turns them into messages.  A message says what is wrong, the hint how to mend it.
"""

from __future__ import annotations


class SberfError(Exception):
    """Base of all errors that sberf raises on purpose.

    Args:
        message: What is wrong, one sentence, no trailing period needed.
        hint: How to mend it, or None.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SberfError):
    """The command line or the arguments of an API call make no sense."""

    exit_code = 2


class TargetError(SberfError):
    """What was to be recorded does not exist, went away, or could not be started."""


class PermissionDenied(SberfError):
    """The kernel or the file system refuses: privileges are missing."""


class UnsupportedError(SberfError):
    """This kernel or machine lacks what was asked for."""


class CaptureError(SberfError):
    """Recording failed for another reason: a full disk, a kernel error."""


class RecordingError(SberfError):
    """A recording is missing, damaged, foreign, or of an unknown version."""


class QueryError(SberfError):
    """A query over a recording is wrong, or asks for data that the recording lacks."""
