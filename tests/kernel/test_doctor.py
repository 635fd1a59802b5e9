"""sberf doctor on the running kernel, with all privileges, with few and with none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SBERF = [sys.executable, "-m", "sberf"]
# A process of root without capabilities may still read this checkout, wherever it lies.
WITHOUT_CAPABILITIES = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
FEW_CAPABILITIES = ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+bpf,+perfmon"]

PROBE = """
import os, time
from sberf._native import kernel_features
kernel_features()
before, start = sorted(os.listdir("/proc/self/fd")), time.monotonic()
features = kernel_features()
print(time.monotonic() - start, sorted(os.listdir("/proc/self/fd")) == before, len(features))
"""


def _doctor(*prefix: str) -> tuple[int, dict[str, Any], dict[str, dict[str, Any]]]:
    command = [*prefix, *SBERF, "doctor", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    shown = json.loads(result.stdout)
    return result.returncode, shown, {finding["name"]: finding for finding in shown["findings"]}


def test_recording_works_here() -> None:
    status, shown, _ = _doctor()
    stopping = [f for f in shown["findings"] if f["required"] and f["state"] != "ok"]
    assert (status, shown["works"], stopping) == (0, True, [])


def test_without_privileges_it_does_not_and_features_stay_unknown() -> None:
    status, shown, findings = _doctor(*WITHOUT_CAPABILITIES)
    assert (status, shown["works"]) == (1, False)
    assert findings["CAP_BPF"]["state"] == "missing"
    assert findings["programs on samples"]["state"] == "unknown"
    assert findings["BTF"]["state"] == "ok"


def test_says_that_two_capabilities_are_enough_and_they_are(tmp_path: Path) -> None:
    status, shown, findings = _doctor(*FEW_CAPABILITIES)
    assert (status, shown["works"]) == (0, True)
    assert findings["CAP_SYS_PTRACE"]["state"] == "missing"
    record = ["record", "-d", "0.1", "-a", "-o", str(tmp_path / "few.data")]
    # Under sudo the recording is given to the caller, for which yet another capability would be needed.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    command = [*FEW_CAPABILITIES, *SBERF, *record]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_in_a_user_namespace_capabilities_do_not_count() -> None:
    enter = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no user namespace can be made here (a chroot?)")
    status, _, findings = _doctor(*enter)
    assert status == 1
    assert findings["user namespace"]["state"] == "limited"


def test_probing_is_fast_and_leaves_nothing_open() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    seconds, closed, count = zip(*(run.stdout.split() for run in runs), strict=True)
    assert set(closed) == {"True"}
    assert int(count[0]) >= 17
    assert min(map(float, seconds)) < 0.2


@pytest.mark.parametrize("arguments", [["--recording", "/nonexistent"], ["--recording", "/proc"]])
def test_no_recording_is_a_message(arguments: list[str]) -> None:
    result = subprocess.run([*SBERF, "doctor", *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "error" in result.stderr
