"""Which package brings the debug file of a program or library of this system."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

_TIMEOUT_S = 5
# Packages whose debug package is not named as Debian's rule says.
_DEBIAN_NAMES = {"libc6": "libc6-dbg", "libc6-i386": "libc6-dbg", "libc-bin": "libc6-dbg"}


def debug_packages(paths: Iterable[str]) -> dict[str, str]:
    """Path -> name of the debug package, for those that the system's package manager knows.

    Debian and Ubuntu: ``PACKAGE-dbgsym`` (wiki.debian.org/AutomaticDebugPackages); Fedora and its kin:
    ``PACKAGE-debuginfo``.

    Args:
        paths: Paths of programs and libraries; those that do not exist here are left out.
    """
    here = [path for path in paths if Path(path).is_file()]
    if not here:
        return {}
    if shutil.which("dpkg-query"):
        return _of_debian(here)
    if shutil.which("rpm"):
        return _of_rpm(here)
    return {}


def _of_debian(paths: list[str]) -> dict[str, str]:
    """A line is ``nginx-core: /usr/sbin/nginx`` or ``libc6:amd64: /lib/x86_64-linux-gnu/libc.so.6``.

    The database has paths as packages ship them: many in /lib that are found in /usr/lib.
    """
    wanted = {variant: path for path in paths for variant in (path, path.removeprefix("/usr"))}
    packages = {}
    for line in _output(["dpkg-query", "--search", *wanted]).splitlines():
        package, colon, path = line.partition(": ")
        if colon and path in wanted:
            name = package.partition(",")[0].partition(":")[0]
            packages[wanted[path]] = _DEBIAN_NAMES.get(name, f"{name}-dbgsym")
    return packages


def _of_rpm(paths: list[str]) -> dict[str, str]:
    packages = {}
    for path in paths:
        name = _output(["rpm", "--query", "--file", "--queryformat", "%{NAME}\\n", path]).strip()
        if name and " " not in name:  # else a sentence: no package owns it
            packages[path] = f"{name}-debuginfo"
    return packages


def _output(command: list[str]) -> str:
    """Of what is printed for those that are known; the others make the exit status 1."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout
