"""Builds the programs of tests/workloads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "workloads"

# Every function has a frame, also one that calls none, and is left by a return, not by a jump.
FLAGS = [
    *("-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-Wl,--build-id=sha1"),
    *("-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer", "-fno-optimize-sibling-calls"),
]
LIBRARIES = ("-ldl", "-lrt")
_SPECIAL: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("chain", "recursion", "pages", "switches"), ("-nostartfiles",)),
    "first_instruction": ("-static", "-nostdlib"),
}


class Workloads:
    """Builds each program once, into one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._built: dict[tuple[str, ...], Path] = {}

    def build(self, source: str, *flags: str, output: str | None = None) -> Path:
        """The program made of ``source``, such as ``"split"``, ``"shapes.cpp"`` or ``"shapes.rs"``.

        Args:
            source: Its file in tests/workloads; ``.c`` may be left out.
            flags: More compiler flags.
            output: The program's name, where it is not that of the source.
        """
        key = (source, output or "", *flags)
        if key not in self._built:
            file = SOURCES / (source if "." in source else f"{source}.c")
            target = self.directory / (output or file.stem)
            _compile(file, target, flags)
            self._built[key] = target
        return self._built[key]


def _compile(file: Path, target: Path, flags: tuple[str, ...]) -> None:
    if file.suffix == ".rs":
        command = [_rustc(), "-O", "-o", str(target), str(file), *flags]
    else:
        compiler = "g++" if file.suffix == ".cpp" else "gcc"
        options = [*FLAGS, *_SPECIAL.get(file.stem, ()), *flags]
        command = [compiler, *options, "-o", str(target), str(file), *LIBRARIES]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}:\n{result.stderr}"


def _rustc() -> str:
    cargo_home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    beside_cargo = cargo_home / "bin/rustc"
    return str(beside_cargo) if beside_cargo.exists() else "rustc"
