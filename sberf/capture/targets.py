"""What to record: checks that it exists before anything is attached."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sberf.capture.containers import Container, find_containers
from sberf.errors import TargetError, UnsupportedError, UsageError

_MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Target:
    """What to record; the fields of ``native/src/capture/options.rs``.

    Args:
        kind: ``all``, ``pids``, ``tids``, ``command``, ``cgroup`` or ``container``.
        pids, tids: Host process and thread IDs.
        cpus: CPU numbers, or None for all that are online.
        cgroups: Directories of cgroups: one that was named, or those of the containers.
        containers: Containers that were named.
        argv: A command that runs while the capture does, or None.
        inherit: Follow new child processes of ``pids`` and of the command.
    """

    kind: str
    pids: tuple[int, ...] = ()
    tids: tuple[int, ...] = ()
    cpus: tuple[int, ...] | None = None
    cgroups: tuple[Path, ...] = ()
    containers: tuple[Container, ...] = ()
    argv: tuple[str, ...] | None = None
    inherit: bool = True

    def as_json(self) -> dict[str, Any]:
        """Plain values for the native module.

        Raises:
            TargetError: A cgroup does not exist any more.
            UnsupportedError: It lies in a hierarchy that the kernel cannot tell tasks by.
        """
        return {
            "kind": self.kind,
            "pids": self.pids,
            "tids": self.tids,
            "cpus": self.cpus,
            "cgroups": [_cgroup_identity(directory) for directory in self.cgroups],
            "argv": None if self.argv is None else [list(os.fsencode(word)) for word in self.argv],
            "inherit": self.inherit,
            "description": self._description(),
        }

    def _description(self) -> dict[str, Any]:
        description: dict[str, Any] = {"kind": self.kind}
        for key in ("pids", "tids", "cpus"):
            if getattr(self, key):
                description[key] = list(getattr(self, key))
        if self.argv:
            description["argv"] = escape_bytes(self.argv)
        paths = escape_bytes(tuple(map(os.fspath, self.cgroups)))
        if self.kind == "cgroup":
            description["cgroup"] = paths[0]
        if self.containers:
            named = [{"id": container.id, "name": container.name} for container in self.containers]
            description |= {"containers": named, "cgroups": paths}
        if self.kind in ("pids", "command"):
            description["inherit"] = self.inherit
        return description


def make_target(
    *,
    everything: bool = False,
    pids: tuple[int, ...] = (),
    tids: tuple[int, ...] = (),
    cpus: tuple[int, ...] = (),
    cgroup: str | None = None,
    containers: tuple[str, ...] = (),
    argv: tuple[str, ...] = (),
    inherit: bool = True,
) -> Target:
    """Check the choice and make a target of it.

    Raises:
        UsageError: Nothing was chosen, or things that exclude one another.
        TargetError: A process, thread, CPU, cgroup or container does not exist, or which container is
            meant is not certain.
    """
    choices = _chosen(everything, pids, tids, cgroup, containers)
    chosen = [name for name, given in choices.items() if given]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude one another")
    if not chosen and not argv and not cpus:
        raise UsageError(
            "nothing to record",
            "give -a, -p PID, --tid TID, -C CPUS, --cgroup PATH, --container NAME or -- COMMAND",
        )
    kind = _KINDS[chosen[0]] if chosen else "command"
    if kind == "command" and cpus:
        kind = "all"  # as perf: the command's run is when, the CPUs are where
    if cpus and kind in ("pids", "tids"):
        raise UsageError(
            f"-C and {chosen[0]} exclude one another", "record with -C, then use report --cpu and --pid"
        )
    for pid in pids:
        _check_pid(pid)
    for tid in tids:
        _check_tid(tid)
    _check_cpus(cpus)
    found = find_containers(containers) if containers else ()
    directories = tuple(path for container in found for path in container.cgroups)
    if cgroup is not None:
        directories = (find_cgroup(cgroup),)
    return Target(kind, pids, tids, cpus or None, directories, found, argv or None, inherit)


def escape_bytes(words: tuple[str, ...]) -> list[str]:
    """Words of a command line with ``\\xNN`` for bytes that are no UTF-8, which JSON cannot hold."""
    return [os.fsencode(word).decode("utf-8", "backslashreplace") for word in words]


_KINDS = {"-a": "all", "-p": "pids", "--tid": "tids", "--cgroup": "cgroup", "--container": "container"}


def _chosen(
    everything: bool,
    pids: tuple[int, ...],
    tids: tuple[int, ...],
    cgroup: str | None,
    containers: tuple[str, ...],
) -> dict[str, bool]:
    given = (everything, bool(pids), bool(tids), cgroup is not None, bool(containers))
    return dict(zip(_KINDS, given, strict=True))


def _check_pid(pid: int) -> None:
    status = _status(pid)
    if status is None:
        raise TargetError(f"no process has the ID {pid}", "`ps -e` lists them")
    tgid = int(status.get("Tgid", pid))
    if tgid != pid:
        raise TargetError(f"{pid} is a thread of process {tgid}", f"give --tid {pid}, or -p {tgid}")
    if status.get("State", "").startswith(("Z", "X")):
        raise TargetError(f"process {pid} has exited and waits for its parent to notice")


def _check_tid(tid: int) -> None:
    if _status(tid) is None:
        raise TargetError(f"no thread has the ID {tid}", "`ps -eL` lists them")


def _status(tid: int) -> dict[str, str] | None:
    try:
        text = Path(f"/proc/{tid}/status").read_text(errors="replace")
    except OSError:
        return None
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def online_cpus() -> list[int]:
    """The CPU numbers that are online."""
    return parse_cpus(Path("/sys/devices/system/cpu/online").read_text().strip())


def parse_cpus(text: str) -> list[int]:
    """Numbers from ``0-3,7``.

    Raises:
        UsageError: The text is no such list.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"'{text}' is no list of CPUs", "write it like 0-3,7")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def _check_cpus(cpus: tuple[int, ...]) -> None:
    online = online_cpus()
    missing = sorted(set(cpus) - set(online))
    if missing:
        raise TargetError(f"CPU {missing[0]} is not online", f"online are {', '.join(map(str, online))}")


def find_cgroup(text: str) -> Path:
    """The directory of a cgroup given as a path, or relative to a hierarchy's mount point.

    Raises:
        TargetError: There is no such cgroup.
    """
    candidates = [Path(text)] if text.startswith("/") else []
    candidates += [mount.path / text.lstrip("/") for mount in _cgroup_mounts()]
    for directory in candidates:
        if (directory / "cgroup.procs").exists():
            return directory
    raise TargetError(f"no cgroup '{text}'", "give its directory, for example one below /sys/fs/cgroup")


@dataclass(frozen=True)
class _Mount:
    path: Path
    v2: bool
    controllers: tuple[str, ...]


def _cgroup_mounts() -> list[_Mount]:
    """The mounted hierarchies, v2 first.

    A line: ``31 25 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu``
    """
    mounts = []
    for line in _MOUNTINFO.read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if kind[0] in ("cgroup", "cgroup2"):
            path = Path(fields[4].replace("\\040", " "))
            mounts.append(_Mount(path, kind[0] == "cgroup2", tuple(kind[-1].split(","))))
    return sorted(mounts, key=lambda mount: not mount.v2)


def _cgroup_identity(directory: Path) -> dict[str, Any]:
    try:
        resolved = directory.resolve(strict=True)
        inode = resolved.stat().st_ino
    except OSError as error:
        raise TargetError(f"no cgroup '{directory}': {error.strerror}") from None
    mounts = [mount for mount in _cgroup_mounts() if resolved.is_relative_to(mount.path.resolve())]
    if not mounts:
        raise TargetError(f"'{directory}' lies in no cgroup hierarchy")
    mount = max(mounts, key=lambda mount: len(os.fspath(mount.path)))
    if mount.v2:
        return {"id": inode, "v1_controller": None}
    controllers = [name for name in mount.controllers if name not in ("rw", "ro", "xattr", "clone_children")]
    if not controllers or "=" in controllers[0]:
        raise UnsupportedError(f"'{directory}' lies in a hierarchy without a controller", "use a v2 cgroup")
    return {"id": inode, "v1_controller": controllers[0]}
