"""Inlined calls, source lines, and names that come later."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from sberf.analysis import Filters, functions
from sberf.recording.debuginfod import Servers
from sberf.recording.recording import Recording, open_recording
from sberf.recording.symbolize import symbolize
from tests.kernel.harness import environment, record, run_sberf
from tests.kernel.processes import Processes, wait_until
from tests.kernel.workloads import Workloads


@pytest.fixture
def program(workloads: Workloads, tmp_path: Path) -> Path:
    """The program, of which ``squares``, inlined into ``sum_of_squares`` and that into ``work``, runs."""
    return Path(shutil.copy(workloads.build("inlined", "-g"), tmp_path / "inlined"))


def shares(recording: Recording, **filters: bool) -> dict[str, float]:
    """Function -> self weight as part of all."""
    table = functions(recording, Filters(**filters), by=["sym"])
    return {row.sym or "": row.self_weight / table.total_weight for row in table.rows}


def test_inlined_calls(program: Path, tmp_path: Path) -> None:
    recording = record(tmp_path / "data", "-F", "999", "--", program)
    assert shares(recording)["squares"] > 0.9
    folded = shares(recording, inlines=False)
    assert folded["work"] > 0.9
    assert "squares" not in folded
    lines = functions(recording, by=["sym", "line"]).rows
    source = Path(__file__).parents[1] / "workloads/inlined.c"
    marked = 1 + next(
        number for number, line in enumerate(source.read_text().splitlines()) if "hot line" in line
    )
    assert lines[0].sym == "squares"
    assert lines[0].line == f"{source}:{marked}"


def stripped(program: Path, directory: Path) -> Path:
    """Move the symbols of the program to a file in ``directory``."""
    directory.mkdir()
    debug_file = directory / "kept"
    subprocess.run(["objcopy", "--only-keep-debug", program, debug_file], check=True)
    subprocess.run(["strip", "--strip-all", program], check=True)
    return debug_file


def test_names_that_come_later(program: Path, tmp_path: Path) -> None:
    stripped(program, tmp_path / "symbols")
    data = tmp_path / "data"
    recording = record(data, "-F", "999", "--", program)
    assert "squares" not in shares(recording)
    [module] = [m for m in overview_json(data)["unnamed_modules"] if m["path"] == str(program)]
    assert module["reason"] == "only exported functions"
    program.unlink()  # as on another machine
    before = recording.rows("SELECT * FROM stacks ORDER BY stack_id")
    recording.close()
    run = run_sberf("symbolize", data, "--debug-dir", tmp_path / "symbols")
    assert (run.status, run.err) == (0, ""), run
    assert "function names" in run.out
    with open_recording(data) as named:
        assert named.check() == []
        assert shares(named)["squares"] > 0.9
        assert named.rows("SELECT * FROM stacks ORDER BY stack_id") == before
    # Nothing is lost when nothing can be found any more.
    shutil.rmtree(tmp_path / "symbols")
    assert run_sberf("symbolize", data).status == 0
    with open_recording(data) as named:
        assert shares(named)["squares"] > 0.9


def overview_json(data: Path) -> dict[str, list[dict[str, str]]]:
    run = run_sberf("report", "-i", data, "--json")
    overview: dict[str, list[dict[str, str]]] = json.loads(run.out)["overview"]
    return overview


@pytest.fixture
def debuginfod(tmp_path: Path, processes: Processes) -> str:
    """Debian's server, on loopback, of the files in the directory ``symbols``; its address."""
    if shutil.which("debuginfod") is None:
        pytest.skip("debuginfod is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "served").mkdir()
    command = ["debuginfod", "-F", "-d", ":memory:", "-p", str(port), "-t", "1", str(tmp_path / "served")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes.start(*command, env={**os.environ, "DEBUGINFOD_URLS": ""}, **quiet)
    return f"http://127.0.0.1:{port}"


def test_debuginfod(program: Path, tmp_path: Path, debuginfod: str) -> None:
    debug_file = stripped(program, tmp_path / "symbols")
    data = tmp_path / "data"
    record(data, "-F", "999", "--", program).close()
    shutil.copy(debug_file, tmp_path / "served/inlined.debug")
    [build_id] = [row[0] for row in open_recording(data).rows(
        "SELECT build_id FROM modules WHERE path = ?", [str(program)]
    )]  # fmt: skip
    wait_until(lambda: is_served(f"{debuginfod}/buildid/{build_id}/debuginfo"), "the server has it")
    cache = tmp_path / "cache"
    environ = environment() | {"DEBUGINFOD_CACHE_PATH": str(cache)}
    # Never without being asked to.
    assert run_sberf("symbolize", data, env=environ).status == 0
    assert not cache.exists()
    run = run_sberf("symbolize", data, env=environ | {"DEBUGINFOD_URLS": f"http://127.0.0.1:9 {debuginfod}"})
    assert run.status == 0, run
    assert "fetched: inlined" in run.out
    assert "http://127.0.0.1:9 was given up" in run.out
    assert [path.name for path in (cache / build_id).iterdir()] == ["debuginfo"]
    with open_recording(data) as named:
        assert shares(named)["squares"] > 0.9
        assert named.check() == []


def is_served(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status == 200
    except OSError:
        return False


def test_a_file_of_other_code_is_not_used(program: Path, tmp_path: Path, workloads: Workloads) -> None:
    """A server may send anything."""
    stripped(program, tmp_path / "symbols")
    data = tmp_path / "data"
    record(data, "-F", "999", "--", program).close()
    with open_recording(data) as recording:
        [(build_id,)] = recording.rows("SELECT build_id FROM modules WHERE path = ?", [str(program)])
    cache = tmp_path / "cache"
    (cache / build_id).mkdir(parents=True)
    shutil.copy(workloads.build("split", "-g"), cache / build_id / "debuginfo")
    servers = Servers(("http://127.0.0.1:9",), cache)
    result = symbolize(data, servers=servers)
    assert result.before == result.after


def test_no_such_recording(tmp_path: Path) -> None:
    run = run_sberf("symbolize", tmp_path / "none")
    assert (run.status, run.out) == (1, "")
    assert "no recording at" in run.err
    run = run_sberf("symbolize", tmp_path, "--debug-dir", tmp_path / "none")
    assert run.status == 1
    assert "there is no directory" in run.err
