"""Names of other kinds of code: C++ and Rust, the vDSO, BPF programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kernel.harness import Sample, is_kernel, read_samples, record, share
from tests.kernel.workloads import SOURCES, Workloads


def leaves(samples: list[Sample], module: str) -> dict[str | None, int]:
    """Weight by the function that ran, in a module."""
    weights: dict[str | None, int] = {}
    for sample in samples:
        if sample.frames and Path(sample.frames[0].module).name == module:
            function = sample.frames[0].function
            weights[function] = weights.get(function, 0) + sample.weight
    return weights


def test_cxx_names_are_demangled(workloads: Workloads, tmp_path: Path) -> None:
    recording = record(tmp_path / "cxx.data", "-F", "2000", "--", workloads.build("shapes.cpp", output="cxx"))
    weights = leaves(read_samples(recording), "cxx")
    measure, call = "shapes::Area<double>::measure(double)", "shapes::Area<double>::operator()(int)"
    assert weights[measure] + weights[call] > 0.98 * sum(weights.values())
    assert min(weights[measure], weights[call]) > 0.1 * sum(weights.values())
    symbols = dict(
        recording.rows(f"SELECT DISTINCT symbol, function FROM frames WHERE function = '{measure}'")
    )
    assert symbols == {"_ZN6shapes4AreaIdE7measureEd": measure}


def test_rust_names_are_demangled_without_their_hash(workloads: Workloads, tmp_path: Path) -> None:
    rust = workloads.build("shapes.rs", output="rust")
    recording = record(tmp_path / "rust.data", "-F", "2000", "--", rust)
    weights = leaves(read_samples(recording), "rust")
    area, square = "shapes::shapes::Area", "shapes::shapes::Square"
    hot = {name for name, weight in weights.items() if weight > 0.1 * sum(weights.values())}
    assert hot == {f"<{square} as {area}>::measure", "shapes::shapes::add_up"}


def test_the_vdso_has_names(workloads: Workloads, tmp_path: Path) -> None:
    recording = record(tmp_path / "vdso.data", "-F", "2000", "--", workloads.build("clocks"), "500")
    samples = [sample for sample in read_samples(recording) if sample.in_user_mode]
    vdso = leaves(samples, "[vdso]")
    assert sum(vdso.values()) > 0.3 * sum(sample.weight for sample in samples)
    assert None not in vdso
    assert {"__vdso_clock_gettime", "clock_gettime", "__kernel_clock_gettime"} & set(map(str, vdso))
    assert {frame.kind for s in samples for frame in s.frames if frame.module == "[vdso]"} == {"vdso"}


def test_a_bpf_program_has_its_own_name(tmp_path: Path) -> None:
    if Path("/proc/sys/net/core/bpf_jit_enable").read_text().strip() == "0":
        pytest.skip("BPF programs are interpreted here: they have no code of their own")
    recording = record(
        tmp_path / "bpf.data", "-F", "2000", "--", sys.executable, SOURCES / "bpf_loop.py", "0.5"
    )  # fmt: skip
    samples = read_samples(recording)
    running = [sample for sample in samples if sample.frames and sample.frames[0].kind == "bpf"]
    assert share(samples, lambda sample: sample in running) > 0.3
    names = {str(sample.frames[0].function) for sample in running}
    assert len(names) == 1
    assert "busy_program" in names.pop()


def test_kernel_code_has_names(workloads: Workloads, tmp_path: Path) -> None:
    recording = record(tmp_path / "kernel.data", "-F", "4000", "--", workloads.build("modes"), "500")
    samples = [sample for sample in read_samples(recording) if sample.has("vfs_read")]
    assert len(samples) > 500
    kernel = [frame for sample in samples for frame in sample.frames if is_kernel(frame)]
    assert {frame.function for frame in kernel if frame.function is None} == set()
    assert {frame.module for frame in kernel} == {"[kernel]"}
