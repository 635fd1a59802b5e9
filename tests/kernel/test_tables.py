"""Unwind tables: kept on disk between captures, and refused where a file would take too much."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sberf.analysis import stack_quality
from sberf.recording.recording import Recording
from tests.kernel.harness import environment, opened, read_samples, record, run_sberf, share
from tests.kernel.processes import Processes
from tests.kernel.workloads import Workloads

# The interpreter and libc, at least, are sampled in each run, and large enough to be kept.
LOAD = "import json, sqlite3, ssl\nfor _ in range(6000): json.loads(json.dumps(list(range(500))))"
SURELY_KEPT = 2
PYTHON = (sys.executable, "-c", LOAD)


def with_cache(directory: Path) -> dict[str, str]:
    return {**environment(), "SBERF_CACHE_DIR": str(directory)}


def capture(output: Path, cache: Path, *, lossless: bool = True) -> Recording:
    recording = record(output, "-F", "2000", "--", *PYTHON, env=with_cache(cache), lossless=lossless)
    quality = stack_quality(recording)
    assert quality.complete_samples >= 0.99 * quality.total_samples
    return recording


def kept_in(cache: Path) -> dict[str, int]:
    """The tables in a cache: name and size."""
    files = (cache / "tables").iterdir()
    return {path.name: path.stat().st_size for path in files if len(path.name) == 32}


def test_a_second_capture_has_its_tables_from_the_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = capture(tmp_path / "first.data", cache).meta["tables"]
    assert first["cached"] == 0
    assert first["made"] > 3
    kept = kept_in(cache)
    assert len(kept) >= SURELY_KEPT
    directory = cache / "tables"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}

    second = capture(tmp_path / "second.data", cache).meta["tables"]
    assert second["cached"] >= SURELY_KEPT
    assert kept.items() <= kept_in(cache).items()
    assert (second["refused"], second["evicted"]) == (0, 0)


def test_captures_at_once_share_a_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(3) as pool:
        # The kernel skips a program while another capture's runs there.
        # Each in a directory of its own: what one is writing is no leftover of another.
        outputs = [tmp_path / str(number) / "data" for number in range(3)]
        for output in outputs:
            output.parent.mkdir()
        runs = [pool.submit(capture, output, cache, lossless=False) for output in outputs]
        recordings = [run.result() for run in runs]
    kept = kept_in(cache)
    # One secret, no temporary file.
    assert len(list((cache / "tables").iterdir())) == len(kept) + 1
    later = capture(tmp_path / "later.data", cache).meta["tables"]
    assert later["cached"] >= SURELY_KEPT
    assert all(recording.meta["warnings"] == [] for recording in recordings)


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    capture(tmp_path / "first.data", cache)
    sizes = kept_in(cache)
    for number, name in enumerate(sizes):
        path = cache / "tables" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content if number % 2 else content[: len(content) // 3])
    assert capture(tmp_path / "second.data", cache).meta["tables"]["cached"] == 0
    assert capture(tmp_path / "third.data", cache).meta["tables"]["cached"] >= SURELY_KEPT
    healed = kept_in(cache)
    assert sum(healed.get(name) == size for name, size in sizes.items()) >= SURELY_KEPT


NO_ROOM = """
set -e
mount -t tmpfs -o size=16k,"$2" tmpfs "$1"
shift 2
exec "$@"
"""


@pytest.mark.parametrize("option", ["rw", "ro"])
def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path, option: str) -> None:
    """It is full, or must not be written."""
    cache, output = tmp_path / "cache", tmp_path / "full.data"
    cache.mkdir()
    shell = ("unshare", "-m", "bash", "-c", NO_ROOM, "no-room", str(cache), option)
    run = run_sberf("record", "-o", output, "-F", "2000", "--", *PYTHON, prefix=shell, env=with_cache(cache))
    assert run.status == 0, run.err
    recording = opened(output)
    assert recording.meta["warnings"] == []
    assert recording.meta["tables"]["cached"] == 0
    assert recording.meta["tables"]["made"] > 3
    quality = stack_quality(recording)
    assert quality.complete_samples >= 0.99 * quality.total_samples


def test_a_directory_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tables = cache / "tables"
    tables.mkdir(parents=True)
    tables.chmod(0o777)
    assert capture(tmp_path / "first.data", cache).meta["tables"]["cached"] == 0
    assert list(tables.iterdir()) == []


def sparse(program: Path, output: Path) -> Path:
    """The same program with more code at its end, behind a hole of more than 512 MiB."""
    far, size, phdr = 640 << 20, 4096, 56
    load, read_execute, gnu_stack = 1, 5, 0x6474E551  # the last one comes after all PT_LOADs
    image = bytearray(program.read_bytes())
    # Elf64_Ehdr: e_phoff at 32, e_phentsize at 54, e_phnum at 56
    (offset,) = struct.unpack_from("<Q", image, 32)
    entry_size, count = struct.unpack_from("<HH", image, 54)
    assert entry_size == phdr
    kinds = {struct.unpack_from("<I", image, at)[0]: at for at in range(offset, offset + count * phdr, phdr)}
    header = (load, read_execute, far, far, far, size, size, 4096)
    struct.pack_into("<IIQQQQQQ", image, kinds[gnu_stack], *header)
    with output.open("wb") as file:
        file.write(image)
        file.truncate(far + size)
    output.chmod(0o755)
    return output


def test_a_file_that_would_take_too_much_is_refused_and_named(
    workloads: Workloads, processes: Processes, tmp_path: Path
) -> None:
    """It costs its own stacks, and no other's."""
    program = sparse(workloads.build("busy", "-fomit-frame-pointer"), tmp_path / "sparse")
    busy = processes.start(program)
    assert busy.line() == "ready"
    output = tmp_path / "refused.data"
    recording = record(output, "-a", "-F", "2000", "--", *PYTHON)
    samples = read_samples(recording)
    own = [sample for sample in samples if sample.pid == busy.pid and sample.in_user_mode]
    assert share(own, lambda sample: sample.end == "table_refused") > 0.95
    other = [sample for sample in samples if sample.comm == Path(sys.executable).name]
    assert share(other, lambda sample: sample.end == "entry") > 0.95

    assert recording.meta["tables"]["refused"] == 1
    [warning] = recording.meta["warnings"]
    assert warning == f"no unwind table for {program}: its code is spread over too much of the file"
    shown = run_sberf("doctor", "--recording", output)
    assert (shown.status, f"warning: {warning}" in shown.out) == (0, True)
    as_json = json.loads(run_sberf("doctor", "--json", "--recording", output).out)
    assert (as_json["sound"], as_json["warnings"]) == (True, [warning])
    quality = subprocess.run(
        [sys.executable, "-m", "sberf", "report", "--stack-quality", "-i", str(output)],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    assert "table_refused" in quality.stdout
