"""Where a recording goes: never over something else, never half-written under its name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

from sberf.capture.options import invoking_user
from sberf.errors import CaptureError
from sberf.recording.schema import FORMAT_NAME


class Output:
    """The directory of a recording, its spool while capturing, and the steps to the final name.

    A recording that is already there becomes ``NAME.old`` when the new one is complete.

    Raises:
        CaptureError: Something that is no recording is there, or the place cannot be written.
    """

    def __init__(self, path: Path, spool: Path | None = None) -> None:
        """Check the place.

        Args:
            path: The recording's directory.
            spool: A spool that is there already; None: one is going to be made.
        """
        self.path = Path(os.path.normpath(path))
        self.spool = spool or self._beside(f".spool-{os.getpid()}")
        self.temporary = self._beside(f".tmp-{os.getpid()}")
        self._old = self._beside(".old")
        for taken in (self.path, self._old):
            if os.path.lexists(taken) and not is_recording(taken):
                raise CaptureError(
                    f"'{taken}' exists and is no recording; it is not overwritten",
                    "give another one with -o DIR",
                )
        if spool is None and os.path.lexists(self.spool):
            raise CaptureError(
                f"'{self.spool}' is what a killed capture left",
                f"finish it with `sberf recover {self.spool}`",
            )
        if not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise CaptureError(f"cannot write to '{self.path.parent}'", "give another place with -o DIR")

    def commit(self) -> None:
        """Give the finished recording its name and remove the spool."""
        _own(self.temporary)
        if os.path.lexists(self.path):
            if os.path.lexists(self._old):
                shutil.rmtree(self._old)
            self.path.rename(self._old)
        self.temporary.rename(self.path)
        shutil.rmtree(self.spool, ignore_errors=True)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def is_recording(path: Path) -> bool:
    """Is ``path`` a directory that sberf wrote a recording to?"""
    try:
        meta = json.loads((path / "meta.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(meta, dict) and meta.get("format") == FORMAT_NAME


def _own(directory: Path) -> None:
    """Under sudo the recording belongs to the user who asked for it."""
    user = invoking_user()
    if user is None:
        return
    # Without CAP_CHOWN, or on a file system without owners, it stays root's: no reason to lose it.
    with contextlib.suppress(OSError):
        for path in (directory, *directory.rglob("*")):
            os.chown(path, *user, follow_symlinks=False)
