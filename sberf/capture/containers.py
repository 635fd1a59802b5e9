"""Containers: which ones run, and which one is meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sberf._native import running_containers
from sberf.errors import TargetError
from sberf.recording.native import translated_errors

_LEAST_PREFIX = 4
_SHOWN_DIGITS = 12
_SHOWN = 8


@dataclass(frozen=True)
class Container:
    """One container that runs.

    Args:
        id: As its runtime and the recording have it: 64 hexadecimal digits, or a name.
        name: What it is called, where its runtime's files tell.
        cgroups: Directories of its outermost cgroups.
    """

    id: str
    name: str | None
    cgroups: tuple[Path, ...]

    def __str__(self) -> str:
        if self.name is None:
            return self.id[:_SHOWN_DIGITS]
        return self.name if self.name == self.id else f"{self.name} ({self.id[:_SHOWN_DIGITS]})"


def list_containers() -> list[Container]:
    """All containers that have a process.

    Raises:
        CaptureError, PermissionDenied: /proc cannot be read.
    """
    with translated_errors():
        found = running_containers()
    cgroups: dict[tuple[str, str | None], list[Path]] = {}
    for identity, name, directory in found:
        cgroups.setdefault((identity, name), []).append(directory)
    return [Container(identity, name, tuple(paths)) for (identity, name), paths in cgroups.items()]


def find_containers(wanted: Sequence[str]) -> tuple[Container, ...]:
    """The running containers with these IDs, beginnings of IDs, or names.

    Raises:
        TargetError: One is not there, or could be several.
    """
    running = list_containers()
    return tuple(dict.fromkeys(choose_container(text, running) for text in wanted))


def choose_container(text: str, running: Sequence[Container]) -> Container:
    """The one of these containers that has the ID or the name ``text``, or whose ID begins with it.

    Raises:
        TargetError: There is none, or several.
    """
    meant = [container for container in running if text in (container.id, container.name)]
    if not meant and len(text) >= _LEAST_PREFIX:
        meant = [container for container in running if container.id.startswith(text)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise TargetError(f"'{text}' could be {_listed(meant, ' or ')}", "give more of the ID")
    if not running:
        raise TargetError(f"no container '{text}': none is running", "`ps -e` lists processes, see -p")
    words = {word: container for container in running for word in (container.name, container.id) if word}
    near = [words[word] for word in difflib.get_close_matches(text, words, _SHOWN)]
    hint = f"near ones are {_listed(near)}" if near else f"running are {_listed(running)}"
    raise TargetError(f"no container '{text}' is running", hint)


def _listed(containers: Iterable[Container], conjunction: str = ", ") -> str:
    names = list(dict.fromkeys(map(str, containers)))
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return conjunction.join(names[:_SHOWN] + more)
