"""Which package brings names, asked of the package manager that is here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sberf.analysis.debug_packages import debug_packages


def test_debian() -> None:
    if shutil.which("dpkg-query") is None:
        pytest.skip("needs Debian's package manager")
    libc = next(Path("/usr/lib").glob("*-linux-gnu/libc.so.6"))
    shell = os.path.realpath("/bin/dash")
    found = debug_packages([str(libc), shell, "/proc/self/exe", "/no/such/file"])
    assert found == {str(libc): "libc6-dbg", shell: "dash-dbgsym"}


def test_hostile_paths(tmp_path: Path) -> None:
    odd = [tmp_path / name for name in ("-l", "*", "a: b", "new\nline")]
    for path in odd:
        path.touch()
    assert debug_packages(map(str, odd)) == {}
    assert debug_packages(["--version", ""]) == {}
