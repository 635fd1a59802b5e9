"""The judgement over made-up machines, and the facts read from made-up /proc and /sys."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sberf.__main__ import main
from sberf.analysis.doctor import Diagnosis, Finding, State, diagnose
from sberf.capture import preflight
from sberf.recording.check import Problem
from sberf.recording.host import HostFacts
from sberf.views.doctor import doctor_json, doctor_lines, recording_lines

FEATURES = [
    "btf",
    "perf_cpu_clock",
    "perf_cycles",
    "perf_sideband",
    "perf_build_id",
    "kprobe",
    "uprobe",
    "ringbuf",
    "ringbuf_array",
    "perf_event_program",
    "unwind_tables",
    "bpf_loop",
    "tracepoint_program",
    "raw_tracepoint",
    "tp_btf",
    "fentry",
    "task_iterator",
]
ALL_CAPABILITIES = frozenset(
    [
        "CAP_BPF",
        "CAP_PERFMON",
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_SYSLOG",
        "CAP_DAC_READ_SEARCH",
        "CAP_IPC_LOCK",
        "CAP_CHECKPOINT_RESTORE",
    ]
)
GOOD = HostFacts(
    kernel="6.12.43-amd64",
    arch="x86_64",
    user="root",
    capabilities=ALL_CAPABILITIES,
    initial_user_namespace=True,
    initial_pid_namespace=True,
    lockdown="none",
    sysctls={
        "kernel.kptr_restrict": 1,
        "kernel.perf_cpu_time_max_percent": 25,
        "kernel.perf_event_max_sample_rate": 100_000,
        "kernel.perf_event_max_stack": 127,
        "kernel.perf_event_paranoid": 2,
        "kernel.yama.ptrace_scope": 0,
        "net.core.bpf_jit_enable": 1,
    },
    open_files=(1024, 1 << 20),
    tracefs="/sys/kernel/tracing",
    tracefs_known=True,
    cgroups="/sys/fs/cgroup",
    kernel_symbols=True,
    features=dict.fromkeys(FEATURES),
)


def _found(diagnosis: Diagnosis, name: str) -> Finding:
    [finding] = [finding for finding in diagnosis.findings if finding.name == name]
    return finding


def _with_feature(name: str, error: str, **changes: Any) -> HostFacts:
    return replace(GOOD, features={**GOOD.features, name: error}, **changes)


def _with_sysctl(name: str, value: int | None) -> HostFacts:
    return replace(GOOD, sysctls={**GOOD.sysctls, name: value})


def test_on_a_good_machine_everything_is_ok() -> None:
    diagnosis = diagnose(GOOD)
    assert diagnosis.works
    assert {finding.state for finding in diagnosis.findings} == {State.OK}


@pytest.mark.parametrize(
    ("facts", "name", "state", "works"),
    [
        (replace(GOOD, kernel="5.10.0-8-amd64"), "version", State.MISSING, False),
        (replace(GOOD, kernel="5.15.0"), "version", State.OK, True),
        (replace(GOOD, lockdown="integrity"), "lockdown", State.OK, True),
        (replace(GOOD, lockdown="confidentiality"), "lockdown", State.MISSING, False),
        (replace(GOOD, lockdown=None), "lockdown", State.UNKNOWN, True),
        (replace(GOOD, kernel_symbols=False), "kernel symbols", State.LIMITED, True),
        (replace(GOOD, kernel_symbols=None), "kernel symbols", State.MISSING, True),
        (replace(GOOD, cgroups=None), "cgroups", State.MISSING, True),
        (replace(GOOD, initial_pid_namespace=False), "PID namespace", State.LIMITED, True),
        (replace(GOOD, capabilities=ALL_CAPABILITIES - {"CAP_BPF"}), "CAP_BPF", State.OK, True),
        (replace(GOOD, capabilities=frozenset({"CAP_BPF"})), "CAP_PERFMON", State.MISSING, False),
        (
            replace(GOOD, capabilities=frozenset({"CAP_BPF", "CAP_PERFMON"})),
            "CAP_SYSLOG",
            State.MISSING,
            True,
        ),
        (replace(GOOD, initial_user_namespace=False), "CAP_BPF", State.MISSING, False),
        (replace(GOOD, open_files=(256, 512)), "open files", State.LIMITED, True),
        (replace(GOOD, open_files=(None, None)), "open files", State.OK, True),
        (replace(GOOD, tracefs=None), "tracefs", State.MISSING, True),
        (_with_feature("unwind_tables", "ENOENT"), "stacks by tables", State.MISSING, True),
        (_with_sysctl("kernel.perf_event_max_sample_rate", 4000), "sample-rate cap", State.LIMITED, True),
        (_with_sysctl("kernel.perf_cpu_time_max_percent", 5), "sampling's CPU share", State.LIMITED, True),
        (_with_sysctl("kernel.perf_event_max_stack", 64), "kernel stack depth", State.LIMITED, True),
        (_with_sysctl("net.core.bpf_jit_enable", 0), "compiler (JIT)", State.LIMITED, True),
        (_with_feature("perf_cycles", "ENOENT"), "hardware counters", State.MISSING, True),
        (_with_feature("ringbuf", "EINVAL"), "ring buffer", State.MISSING, False),
        (_with_feature("btf", "ENOENT"), "BTF", State.MISSING, False),
        (replace(GOOD, features={}, core_error="no module"), "native core", State.MISSING, False),
    ],
)
def test_one_thing_is_wrong(facts: HostFacts, name: str, state: State, works: bool) -> None:
    diagnosis = diagnose(facts)
    finding = _found(diagnosis, name)
    assert finding.state is state
    assert diagnosis.works is works
    assert (finding.cost is None) == (finding.enable is None) == (state is State.OK)


def test_a_missing_privilege_is_no_missing_feature() -> None:
    unprivileged = _with_feature("fentry", "EPERM", capabilities=frozenset())
    assert _found(diagnose(unprivileged), "fentry").state is State.UNKNOWN
    refused = _found(diagnose(_with_feature("fentry", "EPERM")), "fentry")
    assert refused.state is State.MISSING
    assert "refused" in refused.detail
    absent = _found(diagnose(_with_feature("kprobe", "ENOENT", capabilities=frozenset())), "kprobes")
    assert absent.state is State.MISSING


def test_ptrace_scope_does_not_bind_root() -> None:
    restricted = _with_sysctl("kernel.yama.ptrace_scope", 1)
    assert _found(diagnose(restricted), "ptrace_scope").state is State.OK
    user = replace(restricted, capabilities=frozenset({"CAP_BPF", "CAP_PERFMON"}))
    assert _found(diagnose(user), "ptrace_scope").state is State.LIMITED


@pytest.mark.parametrize("width", [40, 80, 200, None])
def test_text_fits_the_terminal(width: int | None) -> None:
    worst = replace(GOOD, capabilities=frozenset(), features=dict.fromkeys(FEATURES, "EINVAL"), tracefs=None)
    lines = list(doctor_lines(diagnose(worst), width))
    assert max(map(len, lines)) <= max(width or 80, 80)
    assert "Recording does not work" in " ".join(lines)


def test_colour_changes_no_text() -> None:
    import re

    plain = list(doctor_lines(diagnose(GOOD), 80))
    coloured = "\n".join(doctor_lines(diagnose(GOOD), 80, colour=True))
    assert "\x1b[32m" in coloured
    assert re.sub(r"\x1b\[\d*m", "", coloured).splitlines() == plain


def test_hostile_user_name_is_escaped() -> None:
    text = "\n".join(doctor_lines(diagnose(replace(GOOD, user="\x1b[2Jroot"))))
    assert "\x1b" not in text


def test_json_holds_what_the_text_does() -> None:
    shown = json.loads(doctor_json(diagnose(GOOD)))
    assert shown["works"] is True
    assert {finding["state"] for finding in shown["findings"]} == {"ok"}


def _machine(root: Path) -> tuple[Path, Path]:
    proc, sys = root / "proc", root / "sys"
    for path, text in {
        "self/status": "Name:\tx\nCapEff:\t000000c000000000\n",
        "self/mounts": "none /mnt/trace tracefs rw 0 0\nnone /cg1 cgroup rw,cpu 0 0\n"
        "none /cg2 cgroup2 rw 0 0\nnone /sec securityfs rw 0 0\n",
        "filesystems": "nodev\ttracefs\n\text4\n",
        "sys/kernel/perf_event_paranoid": "3\n",
        "kallsyms": "0000000000000000 T _text\n0000000000000000 T _stext\n",
    }.items():
        (proc / path).parent.mkdir(parents=True, exist_ok=True)
        (proc / path).write_text(text)
    (proc / "self/ns").mkdir()
    (proc / "self/ns/pid").symlink_to("pid:[4026531836]")
    (proc / "self/ns/user").symlink_to("user:[4026532000]")
    (sys / "kernel/security").mkdir(parents=True)
    (sys / "kernel/security/lockdown").write_text("none [integrity] confidentiality\n")
    return proc, sys


def test_facts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_features", lambda: ({"btf": None}, None))
    facts = preflight.read_facts(*_machine(tmp_path))
    assert facts.capabilities == {"CAP_PERFMON", "CAP_BPF"}
    assert (facts.initial_pid_namespace, facts.initial_user_namespace) == (True, False)
    assert facts.lockdown == "integrity"
    assert facts.sysctls["kernel.perf_event_paranoid"] == 3
    assert facts.sysctls["net.core.bpf_jit_enable"] is None
    assert (facts.tracefs, facts.tracefs_known, facts.cgroups) == ("/mnt/trace", True, "/cg2")
    assert facts.kernel_symbols is False


def test_facts_of_nothing_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_features", lambda: ({}, "no core"))
    facts = preflight.read_facts(tmp_path / "proc", tmp_path / "sys")
    assert facts.capabilities == frozenset()
    assert (facts.lockdown, facts.kernel_symbols, facts.initial_pid_namespace) == (None, None, None)
    assert not diagnose(facts).works


def test_exit_status_says_whether_recording_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "read_facts", lambda: GOOD)
    assert main(["doctor"]) == 0
    assert "Recording works on Linux 6.12.43-amd64" in capsys.readouterr().out
    monkeypatch.setattr(preflight, "read_facts", lambda: replace(GOOD, lockdown="confidentiality"))
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["works"] is False


def test_a_missing_recording_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--recording", os.devnull]) == 1
    assert "error" in capsys.readouterr().err


def test_problems_of_a_recording_are_lines() -> None:
    problems = [Problem("samples", "times never fall", 3), Problem("meta.json", "has no rows")]
    lines = list(recording_lines("x\x1b.data", problems))
    assert len(lines) == 3
    assert lines[-1] == "x\\x1b.data: 2 problems found"
    assert list(recording_lines("x", [])) == ["x: no problems found"]
