"""Naming 100 000 distinct addresses with their inlined calls and lines, from a debug file of a gigabyte.

The file is one C++ unit, full of templates, linked many times under other names.  The addresses are spread
evenly over its code.  Cold: sberf's cache is empty, and the kernel's holds nothing of the file; warm: it was
done before.  The time is that of the naming, the peak memory that of the whole ``sberf symbolize``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from harness.results import Result, Setting, spread

ADDRESSES, QUICK_ADDRESSES = 100_000, 10_000
DEBUG_BYTES, QUICK_DEBUG_BYTES = 1 << 30, 64 << 20
COLD_S, WARM_S, MAX_MB = 5.0, 0.5, 600.0

_SOURCE = r"""
#include <algorithm>
#include <map>
#include <regex>
#include <string>
#include <unordered_map>
#include <vector>
template <int N> struct Work {
    std::map<std::string, std::vector<int>> names;
    std::unordered_map<int, std::string> numbers;
    int run(const std::string &text) {
        std::regex pattern("([a-z]+)=([0-9]+)");
        std::smatch match;
        if (std::regex_search(text, match, pattern))
            names[match[1]].push_back(std::stoi(match[2]) + N);
        std::vector<std::pair<int, std::string>> all(numbers.begin(), numbers.end());
        std::sort(all.begin(), all.end());
        return all.empty() ? N : all.front().first;
    }
};
int run(const std::string &text) { return Work<1>().run(text) + Work<2>().run(text) + Work<3>().run(text); }
"""


def measure(setting: Setting) -> Iterator[Result]:
    """Time and peak memory."""
    with setting.directory() as directory:
        library = _library(directory, QUICK_DEBUG_BYTES if setting.quick else DEBUG_BYTES)
        recording = _recording(directory, library, QUICK_ADDRESSES if setting.quick else ADDRESSES)
        cold, warm, peaks, counts = [], [], [], ""
        for number in range(setting.rounds):
            _forget(library)
            for took in (cold, warm):
                seconds, peak_mb, counts = _symbolize(recording, directory / f"cache{number}")
                took.append(seconds)
                peaks.append(peak_mb)
        size = f"{library.stat().st_size / 1e9:.2f} GB"
    for name, took, limit in (("cold", cold, COLD_S), ("warm", warm, WARM_S)):
        median = statistics.median(took)
        note = f"{spread(took)}, {size}; {counts}"
        yield Result(f"symbolize, {name}", "s", median, target=f"< {limit:g} s", ok=median < limit, note=note)
    peak = max(peaks)
    yield Result("symbolize, peak memory", "MB", peak, target=f"< {MAX_MB:g} MB", ok=peak < MAX_MB, note=size)


def _library(directory: Path, size_bytes: int) -> Path:
    """A shared library with so much debug information."""
    source, unit, library = (directory / name for name in ("unit.cpp", "unit.o", "large.so"))
    source.write_text(_SOURCE)
    subprocess.run(["g++", "-O2", "-g", "-fPIC", "-c", source, "-o", unit], check=True)
    _link([unit], library)
    units = [directory / f"unit{number}.o" for number in range(max(2, size_bytes // library.stat().st_size))]
    for number, path in enumerate(units):
        subprocess.run(["objcopy", f"--prefix-symbols=u{number}_", unit, path], check=True)
    _link(units, library)
    for path in units:
        path.unlink()
    return library


def _link(units: list[Path], library: Path) -> None:
    options = ["-shared", "-nostdlib", "-Wl,--build-id=sha1", "-Wl,--unresolved-symbols=ignore-all"]
    names = library.with_suffix(".units")
    names.write_text("\n".join(map(str, units)))
    subprocess.run(["g++", *options, f"@{names}", "-o", library], check=True)


def _recording(directory: Path, library: Path, addresses: int) -> Path:
    """A recording of one stack with all the addresses."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.unit.synthetic import RecordingBuilder

    offset, size = _text(library)
    build = RecordingBuilder()
    module = build.module(str(library))
    build.tables["modules"][module] |= {"build_id": _build_id(library)}
    for number in range(addresses):
        row = {"module_id": module, "address": offset + size * number // addresses, "is_return": False}
        build.tables["frames"].append({"frame_id": number, **row})
    build.stack([0])
    return build.write(directory / "large.data")


def _text(library: Path) -> tuple[int, int]:
    """Offset and size of ``.text``: ``[ 8] .text PROGBITS 0000000000051000 051000 1a8c42 00 AX 0 0 16``."""
    output = subprocess.run(["readelf", "-SW", library], capture_output=True, text=True, check=True).stdout
    words = next(line for line in output.splitlines() if " .text " in line).split("]")[1].split()
    return int(words[3], 16), int(words[4], 16)


def _build_id(library: Path) -> str:
    output = subprocess.run(["readelf", "-n", library], capture_output=True, text=True, check=True).stdout
    return output.partition("Build ID: ")[2].split()[0]


def _forget(path: Path) -> None:
    """Have the kernel drop the file from its cache."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _symbolize(recording: Path, cache: Path) -> tuple[float, float, str]:
    """Seconds, peak memory in MB, and what was found."""
    started = time.monotonic()
    command = [sys.executable, "-m", "sberf", "symbolize", "--json", str(recording)]
    environment = os.environ | {"SBERF_CACHE_DIR": str(cache)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    result = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    whole_s = time.monotonic() - started
    after = ", ".join(f"{name} {count:,}" for name, count in result["after"].items())
    return result["naming_ns"] / 1e9, usage.ru_maxrss / 1024, f"the command {whole_s:.2f} s, {after}"
