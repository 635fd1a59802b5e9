"""Names the frames of a finished recording once more, with debug files that were not there before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sberf._native import symbolize as native_symbolize
from sberf.errors import RecordingError
from sberf.recording.debuginfod import Servers
from sberf.recording.native import translated_errors
from sberf.recording.recording import open_recording


@dataclass(frozen=True)
class NameCounts:
    """How much of a recording's code is named.

    Args:
        frames: Distinct addresses.
        named: Of these, the ones with a function's name.
        with_line: Of these, the ones with a source line.
        inlined_calls: Calls at these addresses that the compiler inlined.
    """

    frames: int
    named: int
    with_line: int
    inlined_calls: int


@dataclass(frozen=True)
class Symbolized:
    """What naming a recording again has changed.

    Args:
        before, after: How much was and is named.
        naming_ns: How long the naming took, without reading and writing the tables.
        fetched: Modules whose debug file a server had.
        not_fetched: Modules whose debug file no server had.
        failures: By address, why a server was given up.
    """

    before: NameCounts
    after: NameCounts
    naming_ns: int
    fetched: tuple[str, ...]
    not_fetched: tuple[str, ...]
    failures: dict[str, str]


def symbolize(
    path: Path,
    debug_dirs: Sequence[Path] = (),
    servers: Servers | None = None,
    on_progress: Callable[[str, int, int | None], None] | None = None,
) -> Symbolized:
    """Name the frames of the recording at ``path``; what cannot be named better stays as it is.

    Args:
        path: The recording.
        debug_dirs: Directories with debug files or programs in any layout; they are told by build-id.
        servers: debuginfod servers to ask for what this system does not have; None: none.
        on_progress: Called while a file is fetched: the module, the bytes so far, those in all or None.

    Raises:
        RecordingError: There is no such recording, or it is damaged; or a directory does not exist.
        CaptureError: The recording cannot be written.
        OSError: The cache of fetched files cannot be written.
    """
    for directory in debug_dirs:
        if not directory.is_dir():
            raise RecordingError(f"there is no directory '{directory}'")
    fetched: list[str] = []
    not_fetched: list[str] = []
    if servers is not None:
        for module, build_id in _modules_without_debug_file(path):
            progress = None if on_progress is None else _of_module(on_progress, module)
            found = servers.fetch(build_id, progress)
            (not_fetched if found is None else fetched).append(module)
    else:
        open_recording(path).close()
    with translated_errors():
        counts = json.loads(native_symbolize(str(path), [str(directory) for directory in debug_dirs]))
    return Symbolized(
        before=NameCounts(**counts["before"]),
        after=NameCounts(**counts["after"]),
        naming_ns=counts["naming_ns"],
        fetched=tuple(fetched),
        not_fetched=tuple(not_fetched),
        failures=dict(servers.failures) if servers else {},
    )


def _of_module(
    on_progress: Callable[[str, int, int | None], None], module: str
) -> Callable[[int, int | None], None]:
    return lambda done, size: on_progress(module, done, size)


def _modules_without_debug_file(path: Path) -> list[tuple[str, str]]:
    """Path and build-id, those with the most addresses first."""
    with open_recording(path) as recording:
        return recording.rows(
            """
            SELECT path, build_id FROM modules JOIN frames USING (module_id)
            WHERE kind = 'elf' AND build_id IS NOT NULL AND debug_file IS NULL
            GROUP BY path, build_id ORDER BY count(*) DESC, path"""
        )
