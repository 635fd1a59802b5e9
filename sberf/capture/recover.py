"""Finishes the spool of a capture whose process died."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from sberf._native import recover as native_recover
from sberf.capture.output import Output
from sberf.errors import CaptureError, RecordingError
from sberf.recording.native import translated_errors
from sberf.units import format_count


def recover(spool: Path, output: Path) -> list[str]:
    """Make the recording ``output`` of ``spool``, remove the spool, and say what was done.

    Raises:
        RecordingError: ``spool`` is no spool, of another version, or its capture still runs.
        CaptureError: The recording cannot be written.
    """
    if not (spool / "header.json").is_file():
        raise RecordingError(f"'{spool}' is no spool of a capture", "it would hold header.json and events")
    _check_not_running(spool)
    place = Output(output, spool)
    with translated_errors():
        meta = json.loads(native_recover(str(spool), str(place.temporary)))
    try:
        place.commit()
    except OSError as error:
        raise CaptureError(f"cannot name the recording '{output}': {error.strerror}") from None
    _remove_unfinished(spool)
    return [f"recovered {output}: {format_count(meta['rows']['samples'])} samples", *meta["warnings"]]


def _check_not_running(spool: Path) -> None:
    """The capture that writes a spool carries its PID in the name and the directory open."""
    pid = spool.name.rpartition("-")[2]
    descriptors = Path(f"/proc/{pid}/fd")
    if not pid.isdecimal() or not descriptors.is_dir():
        return
    events = (spool / "events").resolve()
    try:
        running = any(os.path.realpath(fd) == str(events) for fd in descriptors.iterdir())
    except OSError:
        return
    if running:
        raise RecordingError(f"the capture that writes '{spool}' still runs", f"end it: kill -INT {pid}")


def _remove_unfinished(spool: Path) -> None:
    """What the killed process had begun to write of its recording."""
    name, _, pid = spool.name.rpartition(".spool-")
    if pid.isdecimal():
        for begun in (f"{name}.tmp-{pid}", f".{name}.tmp-{pid}.{pid}.partial"):
            shutil.rmtree(spool.with_name(begun), ignore_errors=True)
