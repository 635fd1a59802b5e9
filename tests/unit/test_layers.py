"""What import-linter cannot see: who imports the compiled core, and what the CLI imports at start."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sberf"
MAY_USE_CORE = {"capture", "recording"}
HEAVY = {"duckdb", "rich", "pyarrow", "shtab", "sberf._native"}


def _imports(path: Path) -> set[str]:
    """Dotted names of everything that the module imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_capture_and_recording_import_the_core(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0]
    assert layer in MAY_USE_CORE or "sberf._native" not in _imports(path)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["report", "--help"], ["record", "--help"], ["no-command"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from sberf.__main__ import main; main(sys.argv[1:]); "
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not HEAVY & set(result.stderr.split()), result.stderr
