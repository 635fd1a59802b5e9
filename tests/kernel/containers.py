"""Containers of the tests: crun on a small root file system that nobody else sees."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kernel.processes import DEADLINE_S, Processes, Started, wait_until

CGROUPS = Path("/sys/fs/cgroup")
STATE = Path("/run/crun")

# The root file system is an overlay, as most daemons make one, over files in memory; both are gone with
# the last process in the mount namespace.
_RUN = """
set -e
bundle=$1 name=$2
mount -t tmpfs tmpfs $bundle/stage
mkdir $bundle/stage/lower $bundle/stage/upper $bundle/stage/work
mv $bundle/files/* $bundle/stage/lower
cd $bundle/stage
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay $bundle/rootfs
cd $bundle
%s
exec crun --cgroup-manager=cgroupfs run --bundle $bundle $name
"""

# crun refuses hierarchies of both kinds at once, so it is shown those of one kind.
_VIEWS = {
    "v1": f"mountpoint -q {CGROUPS}/unified && umount {CGROUPS}/unified",
    "v2": f"mountpoint -q {CGROUPS} && umount --recursive --lazy {CGROUPS}; mount -t cgroup2 none {CGROUPS}",
}


def layouts() -> list[str]:
    """The kinds of cgroup hierarchies in which this machine can have containers."""
    mounts = [line.split(" ")[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    kinds = {"cgroup": "v1", "cgroup2": "v2"}
    return sorted({kinds[kind] for _, kind in mounts if kind in kinds})


def directories(name: str) -> list[Path]:
    """The directories of all cgroups with this name."""
    return [Path(above) / name for above, below, _ in os.walk(CGROUPS) if name in below]


class Containers:
    """Starts containers; ends them, and looks whether they left something."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self._directory = directory
        self._processes = processes
        self._names: list[str] = []

    def start(self, layout: str, name: str, *argv: str | Path, **config: Any) -> Started:
        """Run a program, which is copied there with its libraries, in a container of that name.

        Args:
            layout: One of ``layouts()``.
            name: The container's name, which is its ID as well.
            argv: The program and its arguments.
            config: For ``linux`` in the bundle's configuration.
        """
        bundle = self._directory / f"bundle-{len(self._names)}"
        for part in ("files/bin", "files/dev", "files/proc", "files/tmp", "rootfs", "stage"):
            (bundle / part).mkdir(parents=True)
        program = Path(argv[0])
        copy_program(program, bundle / "files")
        words = [f"/bin/{program.name}", *map(str, argv[1:])]
        (bundle / "config.json").write_text(json.dumps(_configuration(words, config)))
        self._names.append(name)
        script = _RUN % _VIEWS[layout]
        return self._processes.start("unshare", "--mount", "sh", "-c", script, "sh", bundle, name)

    def end(self) -> None:
        """Kill them; fail when something of them is left."""
        for name in self._names:
            subprocess.run(["crun", "kill", name, "KILL"], capture_output=True, check=False)
        for name in self._names:
            wait_until(lambda name=name: not (STATE / name).exists(), f"the end of container {name}")
            wait_until(lambda name=name: not directories(name), f"the end of cgroup {name}")
        assert str(self._directory) not in Path("/proc/self/mountinfo").read_text()


def copy_program(program: Path, root: Path) -> None:
    """Copy a program to ``root/bin``, and its libraries to where it looks for them."""
    (root / "bin").mkdir(exist_ok=True)
    shutil.copy(program, root / "bin")
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+) \(0x", listing):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def _configuration(argv: list[str], linux: dict[str, Any]) -> dict[str, Any]:
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")]
    return {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": argv, "cwd": "/", "env": []},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": namespaces, **linux},
    }


@contextlib.contextmanager
def cgroup_of(layout: str, name: bytes) -> Iterator[bytes]:
    """A cgroup of our own with any name, in some hierarchy of that kind."""
    kind = {"v1": "cgroup", "v2": "cgroup2"}[layout]
    mounts = (line.split(" ")[1:4] for line in Path("/proc/self/mounts").read_text().splitlines())
    where = next(place for place, found, options in mounts if found == kind and "name=" not in options)
    path = os.path.join(os.fsencode(where), name)
    os.mkdir(path)
    try:
        yield path
    finally:
        procs = os.path.join(path, b"cgroup.procs")
        wait_until(lambda: not _read(procs), f"{path!r} is empty", DEADLINE_S)
        os.rmdir(path)


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()
