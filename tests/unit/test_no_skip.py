"""The rule of tests/conftest.py, tried on tests that skip in every way there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
SKIPPING = {
    "test_call.py": "import pytest\ndef test_a(): pytest.skip('no reason')\n",
    "test_mark.py": "import pytest\n@pytest.mark.skip(reason='no reason')\ndef test_a(): pass\n",
    "test_fixture.py": "import pytest\n@pytest.fixture\ndef f(): pytest.skip('no')\ndef test_a(f): pass\n",
    "test_module.py": "import pytest\npytest.importorskip('no_such_module_at_all')\n",
}


def _pytest(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    for name, text in SKIPPING.items():
        (directory / name).write_text(text)
    (directory / "conftest.py").write_text(CONFTEST.read_text())
    inherited = {k: v for k, v in os.environ.items() if k not in ("CI", "SBERF_NO_SKIP")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
    ]
    return subprocess.run(
        command, cwd=directory, env=inherited | environment, capture_output=True, text=True, check=False
    )


def test_skips_are_allowed_by_default(tmp_path: Path) -> None:
    result = _pytest(tmp_path)
    assert result.returncode == 0, result.stdout
    assert "4 skipped" in result.stdout


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"SBERF_NO_SKIP": "1"}])
def test_skips_are_failures_in_ci(tmp_path: Path, environment: dict[str, str]) -> None:
    result = _pytest(tmp_path, **environment)
    assert result.returncode == 1, result.stdout
    assert "skipped" not in result.stdout.splitlines()[-1], result.stdout
    assert result.stdout.count("which is a failure here") >= len(SKIPPING)
