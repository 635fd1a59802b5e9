"""The wheel, in an empty virtual environment on a machine without clang, Rust or libbpf on its path."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

DIST = Path(__file__).parents[2] / "dist"
SYSTEM_LIBRARIES = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
BUSY = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass"


@pytest.fixture(scope="module")
def wheel() -> Path:
    wheels = list(DIST.glob("sberf-*.whl"))
    if len(wheels) != 1:
        pytest.fail(f"{len(wheels)} wheels in dist/, one is wanted: run make wheel")
    return wheels[0]


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and what it depends on, in it."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    pip = [directory / "venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, wheel], check=True, cwd=directory)
    return directory


def _run(environment: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the virtual environment, with nothing else on the path."""
    binaries = environment / "venv/bin"
    return subprocess.run(
        [binaries / command[0], *command[1:]],
        cwd=environment,
        env={"PATH": str(binaries), "LANG": "C.UTF-8", "HOME": str(environment)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def core(environment: Path) -> Path:
    """The native module as installed."""
    result = _run(environment, "python", "-c", "import sberf._native; print(sberf._native.__file__)")
    path = Path(result.stdout.strip())
    assert path.is_relative_to(environment / "venv"), result.stderr
    return path


def test_holds_all_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if name.startswith("sberf/")}
    assert {"sberf/py.typed", "sberf/_native.pyi", "sberf/views/assets/flame.html"} <= package
    assert any(re.fullmatch(r"sberf/_native\.abi3\.so", name) for name in package)
    assert {Path(name).name for name in names if "licenses" in name} >= {
        "LICENSE",
        "NOTICE",
        "LICENSE.GPL-2.0",
    }
    assert all(re.match(r"sberf(-[^/]*\.dist-info)?/", name) for name in names), names
    assert not [name for name in names if "__pycache__" in name]


def test_tag_names_a_glibc_that_is_old_enough(wheel: Path, core: Path) -> None:
    tag = re.search(r"-cp311-abi3-manylinux_2_(\d+)_(\w+?)(\.|$)", wheel.name)
    assert tag, wheel.name
    assert tag[2] == platform.machine()
    symbols = subprocess.run(["objdump", "-T", core], capture_output=True, text=True, check=True).stdout
    needed = {int(minor) for minor in re.findall(r"\(?GLIBC_2\.(\d+)", symbols)}
    assert needed
    assert max(needed) <= int(tag[1])


def test_needs_only_system_libraries(core: Path) -> None:
    dynamic = subprocess.run(["objdump", "-p", core], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED\s+(\S+)", dynamic))
    assert "libc.so.6" in needed
    assert {name for name in needed - SYSTEM_LIBRARIES if not name.startswith("ld-linux")} == set()


def test_help(environment: Path) -> None:
    result = _run(environment, "sberf", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "sberf COMMAND --help" in result.stdout


def test_doctor_says_that_recording_works(environment: Path) -> None:
    result = _run(environment, "sberf", "doctor", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout)["works"] is True
    assert result.returncode == 0


def test_records_and_reports(environment: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("recording needs root")
    recorded = _run(
        environment, "sberf", "record", "-o", "busy.data", "-F", "999", "--", "python", "-c", BUSY
    )
    assert recorded.returncode == 0, recorded.stderr
    checked = _run(environment, "sberf", "doctor", "--recording", "busy.data")
    assert checked.returncode == 0, checked.stdout
    reported = _run(environment, "sberf", "report", "-i", "busy.data")
    assert (reported.returncode, reported.stderr) == (0, "")
    assert "python" in reported.stdout
    drawn = _run(environment, "sberf", "flame", "-i", "busy.data", "-o", "flame.html")
    assert drawn.returncode == 0, drawn.stderr
    assert (environment / "flame.html").stat().st_size > 10_000
