"""Can this machine, and this user on it, record?  What is missing, what that costs, how to get it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sberf.recording.host import HostFacts

OLDEST_KERNEL = (5, 15)
USUAL_RATE_HZ = 10_000
FEW_OPEN_FILES = 4096
FULL_KERNEL_STACK = 127


class State(StrEnum):
    """How a thing is: ``ok``, there in part, not there, or not to be found out (with a reason)."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        group: The heading that it belongs under.
        name: What was looked at.
        state: How it is.
        detail: The value that was found.
        cost: What its lack costs; None when it is ok.
        enable: The command (or else the means) that enables it; None when it is ok.
        required: Whether recording needs it.
    """

    group: str
    name: str
    state: State
    detail: str
    cost: str | None = None
    enable: str | None = None
    required: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found.

    Args:
        kernel: The kernel's release.
        arch: The machine's architecture.
        user: Who asked.
        works: Whether recording works: nothing that it requires is missing.
        findings: What was looked at, in groups.
    """

    kernel: str
    arch: str
    user: str
    works: bool = field(init=False)
    findings: tuple[Finding, ...]

    def __post_init__(self) -> None:
        works = not any(f.required and f.state in (State.MISSING, State.UNKNOWN) for f in self.findings)
        object.__setattr__(self, "works", works)


def diagnose(facts: HostFacts) -> Diagnosis:
    """What the facts about a machine mean for recording on it."""
    if facts.initial_user_namespace is False:
        # The kernel asks for the host's capabilities; those of a user namespace open nothing.
        facts = replace(facts, capabilities=frozenset())
    groups = (_kernel, _user, _sampling, _bpf, _probes)
    findings = tuple(finding for group in groups for finding in group(facts))
    return Diagnosis(facts.kernel, facts.arch, facts.user, findings)


def _kernel(facts: HostFacts) -> Iterator[Finding]:
    yield _kernel_version(facts)
    if facts.core_error is not None:
        yield Finding(
            "kernel",
            "native core",
            State.MISSING,
            facts.core_error,
            "nothing can be recorded, and what the kernel can do cannot be tried",
            "make build, or install sberf's wheel for this Python and machine",
            required=True,
        )
    yield _feature(facts, "kernel", "BTF", "btf")
    yield _lockdown(facts)
    yield _symbols(facts)
    yield _cgroup(facts)
    yield _pid_namespace(facts)


def _kernel_version(facts: HostFacts) -> Finding:
    numbers = re.match(r"(\d+)\.(\d+)", facts.kernel)
    oldest = ".".join(map(str, OLDEST_KERNEL))
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_KERNEL:
        cost = "BPF links of perf events do not exist; nothing can be recorded"
        enable = f"boot Linux {oldest} or newer"
        return Finding("kernel", "version", State.MISSING, facts.kernel, cost, enable, required=True)
    return Finding("kernel", "version", State.OK, f"{facts.kernel} ({oldest} is needed)", required=True)


def _lockdown(facts: HostFacts) -> Finding:
    match facts.lockdown:
        case None:
            return Finding(
                "kernel",
                "lockdown",
                State.UNKNOWN,
                "securityfs is not mounted or not readable",
                "a refusal below may come from a locked-down kernel, and this does not show",
                "sudo mount -t securityfs securityfs /sys/kernel/security",
            )
        case "confidentiality":
            return Finding(
                "kernel",
                "lockdown",
                State.MISSING,
                "confidentiality",
                "neither perf events nor BPF may read kernel memory; nothing can be recorded",
                "boot with lockdown=integrity, or with Secure Boot off",
                required=True,
            )
        case "absent":
            return Finding("kernel", "lockdown", State.OK, "this kernel has none")
        case mode:
            return Finding("kernel", "lockdown", State.OK, mode)


def _symbols(facts: HostFacts) -> Finding:
    restrict = f"kptr_restrict = {facts.sysctls.get('kernel.kptr_restrict')}"
    cost = "kernel frames have addresses instead of names"
    if facts.kernel_symbols:
        return Finding("kernel", "kernel symbols", State.OK, restrict)
    if facts.kernel_symbols is None:
        enable = "boot a kernel with CONFIG_KALLSYMS=y"
        return Finding("kernel", "kernel symbols", State.MISSING, "no /proc/kallsyms", cost, enable)
    enable = "sudo sberf ..., or sudo sysctl kernel.kptr_restrict=0 kernel.perf_event_paranoid=1"
    if "CAP_SYSLOG" in facts.capabilities:
        enable = "sudo sysctl kernel.kptr_restrict=1"
    return Finding("kernel", "kernel symbols", State.LIMITED, f"hidden; {restrict}", cost, enable)


def _cgroup(facts: HostFacts) -> Finding:
    if facts.cgroups:
        return Finding("kernel", "cgroups", State.OK, facts.cgroups)
    cost = "--cgroup and --container cannot be used"
    enable = "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    return Finding("kernel", "cgroups", State.MISSING, "not mounted", cost, enable)


def _pid_namespace(facts: HostFacts) -> Finding:
    match facts.initial_pid_namespace:
        case True:
            return Finding("kernel", "PID namespace", State.OK, "the host's")
        case None:
            state, detail = State.UNKNOWN, "/proc/self/ns/pid is not readable"
        case False:
            state, detail = State.LIMITED, "a container's"
    cost = "the kernel's process IDs are not those of /proc here: most frames and processes have no name"
    enable = "run sberf on the host, or share its namespace: docker run --pid=host"
    return Finding("kernel", "PID namespace", state, detail, cost, enable)


@dataclass(frozen=True)
class _Capability:
    name: str
    cost: str
    required: bool = False
    instead: frozenset[str] = frozenset()


_CAPABILITIES = (
    _Capability("CAP_BPF", "no BPF program can be loaded", True, frozenset({"CAP_SYS_ADMIN"})),
    _Capability("CAP_PERFMON", "no perf event can be opened for others", True, frozenset({"CAP_SYS_ADMIN"})),
    _Capability("CAP_SYS_PTRACE", "programs of other users have no names: their mappings are hidden"),
    _Capability("CAP_DAC_READ_SEARCH", "files that only their owner may read have no symbols"),
    _Capability(
        "CAP_CHECKPOINT_RESTORE",
        "files that were deleted or replaced while mapped have no symbols",
        instead=frozenset({"CAP_SYS_ADMIN"}),
    ),
    _Capability("CAP_SYSLOG", "kernel frames may have no names (see kernel symbols)"),
    _Capability("CAP_IPC_LOCK", "the buffers of many CPUs may not fit into kernel.perf_event_mlock_kb"),
)


def _user(facts: HostFacts) -> Iterator[Finding]:
    if facts.initial_user_namespace is False:
        cost = "capabilities count only inside it: BPF and perf events are refused"
        enable = "run sberf as root of the host, not of a rootless container"
        yield Finding("user", "user namespace", State.LIMITED, "a container's", cost, enable)
    for wanted in _CAPABILITIES:
        enable = "sudo sberf ..., or grant it (docs/doctor.md says how)"
        if wanted.name in facts.capabilities:
            yield Finding("user", wanted.name, State.OK, "held", required=wanted.required)
        elif held := sorted(wanted.instead & facts.capabilities):
            yield Finding("user", wanted.name, State.OK, f"{held[0]} stands in", required=wanted.required)
        else:
            yield Finding(
                "user", wanted.name, State.MISSING, "not held", wanted.cost, enable, required=wanted.required
            )
    yield _ptrace_scope(facts)
    yield _open_files(facts)


def _ptrace_scope(facts: HostFacts) -> Finding:
    scope = facts.sysctls.get("kernel.yama.ptrace_scope")
    if scope is None:
        return Finding("user", "ptrace_scope", State.OK, "this kernel has no Yama")
    if scope == 0 or "CAP_SYS_PTRACE" in facts.capabilities:
        return Finding("user", "ptrace_scope", State.OK, f"{scope}")
    cost = "even one's own programs may have no names: their mappings are hidden"
    return Finding(
        "user", "ptrace_scope", State.LIMITED, f"{scope}", cost, "sudo sysctl kernel.yama.ptrace_scope=0"
    )


def _open_files(facts: HostFacts) -> Finding:
    _, hard = facts.open_files  # sberf raises the soft limit itself
    if hard is None or hard >= FEW_OPEN_FILES:
        return Finding("user", "open files", State.OK, f"up to {hard or 'any number'}")
    cost = "of many different programs, those that end first lose their names"
    return Finding(
        "user", "open files", State.LIMITED, f"up to {hard}", cost, "sudo sh -c 'ulimit -n 65536; sberf ...'"
    )


def _sampling(facts: HostFacts) -> Iterator[Finding]:
    yield _feature(facts, "sampling", "perf events", "perf_cpu_clock")
    yield _feature(facts, "sampling", "side-band events", "perf_sideband")
    yield _feature(facts, "sampling", "mapped build-ids", "perf_build_id")
    yield _feature(facts, "sampling", "hardware counters", "perf_cycles")
    yield _paranoid(facts)
    yield _sample_rate(facts)
    yield _cpu_time(facts)
    yield _kernel_stack_depth(facts)


def _paranoid(facts: HostFacts) -> Finding:
    name, level = "perf_event_paranoid", facts.sysctls.get("kernel.perf_event_paranoid")
    if level is None:
        enable = "boot a kernel with CONFIG_PERF_EVENTS=y"
        return Finding("sampling", name, State.MISSING, "absent", "no perf event can be opened", enable)
    if {"CAP_PERFMON", "CAP_SYS_ADMIN"} & facts.capabilities:
        return Finding("sampling", name, State.OK, f"{level} (binds only users without CAP_PERFMON)")
    cost = "perf events of other users and of the kernel are refused"
    enable = "sudo sberf ... (BPF needs privileges at any level)"
    return Finding("sampling", name, State.LIMITED if level > -1 else State.OK, f"{level}", cost, enable)


def _sample_rate(facts: HostFacts) -> Finding:
    name, cap = "sample-rate cap", facts.sysctls.get("kernel.perf_event_max_sample_rate")
    if cap is None:
        return Finding("sampling", name, State.UNKNOWN, "kernel.perf_event_max_sample_rate is not readable")
    if cap >= USUAL_RATE_HZ:
        return Finding("sampling", name, State.OK, f"{cap} Hz")
    cost = f"a frequency over {cap} Hz is refused (--clamp lowers it)"
    enable = "sudo sysctl kernel.perf_event_max_sample_rate=100000"
    return Finding("sampling", name, State.LIMITED, f"{cap} Hz", cost, enable)


def _cpu_time(facts: HostFacts) -> Finding:
    name, percent = "sampling's CPU share", facts.sysctls.get("kernel.perf_cpu_time_max_percent")
    if percent is None:
        return Finding("sampling", name, State.UNKNOWN, "kernel.perf_cpu_time_max_percent is not readable")
    if percent in (0, 100):
        return Finding("sampling", name, State.OK, "unlimited")
    if percent >= 25:
        return Finding("sampling", name, State.OK, f"{percent}% (above it the kernel lowers the cap)")
    cost = "the kernel lowers the sample-rate cap early"
    enable = "sudo sysctl kernel.perf_cpu_time_max_percent=25"
    return Finding("sampling", name, State.LIMITED, f"{percent}%", cost, enable)


def _kernel_stack_depth(facts: HostFacts) -> Finding:
    name, depth = "kernel stack depth", facts.sysctls.get("kernel.perf_event_max_stack")
    if depth is None:
        return Finding("sampling", name, State.UNKNOWN, "kernel.perf_event_max_stack is not readable")
    if depth >= FULL_KERNEL_STACK:
        return Finding("sampling", name, State.OK, f"{depth} frames")
    cost = f"kernel stacks are cut at {depth} frames"
    enable = f"sudo sysctl kernel.perf_event_max_stack={FULL_KERNEL_STACK}"
    return Finding("sampling", name, State.LIMITED, f"{depth} frames", cost, enable)


def _bpf(facts: HostFacts) -> Iterator[Finding]:
    yield _feature(facts, "BPF", "programs on samples", "perf_event_program")
    yield _feature(facts, "BPF", "ring buffer", "ringbuf")
    yield _feature(facts, "BPF", "ring buffers per CPU", "ringbuf_array")
    yield _feature(facts, "BPF", "stacks by tables", "unwind_tables")
    yield _feature(facts, "BPF", "bpf_loop", "bpf_loop")
    yield _feature(facts, "BPF", "task iterator", "task_iterator")
    yield _jit(facts)


def _jit(facts: HostFacts) -> Finding:
    enabled = facts.sysctls.get("net.core.bpf_jit_enable")
    if enabled is None:
        return Finding("BPF", "compiler (JIT)", State.UNKNOWN, "net.core.bpf_jit_enable is not readable")
    if enabled:
        return Finding("BPF", "compiler (JIT)", State.OK, "on")
    cost = "BPF programs are interpreted: every sample takes several times as long"
    return Finding(
        "BPF", "compiler (JIT)", State.LIMITED, "off", cost, "sudo sysctl net.core.bpf_jit_enable=1"
    )


def _probes(facts: HostFacts) -> Iterator[Finding]:
    yield _tracefs(facts)
    yield _feature(facts, "probes", "tracepoints", "tracepoint_program")
    yield _feature(facts, "probes", "raw tracepoints", "raw_tracepoint")
    yield _feature(facts, "probes", "tp_btf", "tp_btf")
    yield _feature(facts, "probes", "fentry", "fentry")
    yield _feature(facts, "probes", "kprobes", "kprobe")
    yield _feature(facts, "probes", "uprobes", "uprobe")


def _tracefs(facts: HostFacts) -> Finding:
    cost = "tracepoints cannot be listed by name; sampling does not need it"
    if facts.tracefs:
        return Finding("probes", "tracefs", State.OK, facts.tracefs)
    if facts.tracefs_known:
        enable = "sudo mount -t tracefs tracefs /sys/kernel/tracing"
        return Finding("probes", "tracefs", State.MISSING, "not mounted", cost, enable)
    enable = "boot a kernel with CONFIG_TRACING=y"
    return Finding("probes", "tracefs", State.MISSING, "this kernel has none", cost, enable)


@dataclass(frozen=True)
class _Feature:
    """What the lack of a probed feature means."""

    cost: str
    enable: str
    required: bool = False


_KERNEL_PROBES = "functions of the kernel cannot be probed this way; sampling does not need it"
_FEATURES = {
    "btf": _Feature(
        "BPF programs cannot be fitted to this kernel; nothing can be recorded",
        "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        required=True,
    ),
    "perf_cpu_clock": _Feature(
        "nothing can be sampled", "boot a kernel with CONFIG_PERF_EVENTS=y", required=True
    ),
    "perf_sideband": _Feature(
        "programs that start while recording have no names", "boot Linux 5.15 or newer", required=True
    ),
    "perf_build_id": _Feature(
        "a file that is replaced while it is recorded can be taken for the new one",
        "boot Linux 5.12 or newer",
    ),
    "perf_cycles": _Feature(
        "cycles, instructions and the like cannot be sampled; cpu-clock stands in for cycles",
        "give the virtual machine a PMU: qemu -cpu host,pmu=on",
    ),
    "perf_event_program": _Feature(
        "nothing can be recorded", "boot Linux 5.15 or newer with CONFIG_BPF_EVENTS=y", required=True
    ),
    "ringbuf": _Feature("nothing can be recorded", "boot Linux 5.8 or newer", required=True),
    "ringbuf_array": _Feature("nothing can be recorded", "boot Linux 5.8 or newer", required=True),
    "unwind_tables": _Feature(
        "user stacks go by frame pointer: those of programs that keep none, as distributions build them, "
        "end after a frame or two",
        "boot Linux 6.1 or newer with CONFIG_DEBUG_INFO_BTF=y",
    ),
    "bpf_loop": _Feature("user stacks are cut at 127 frames", "boot Linux 5.17 or newer"),
    "task_iterator": _Feature(
        "the states of all threads cannot be read at once; sampling does not need it",
        "boot Linux 5.8 or newer with CONFIG_DEBUG_INFO_BTF=y",
    ),
    "tracepoint_program": _Feature(
        "tracepoints cannot be recorded; sampling does not need it", "boot a kernel with CONFIG_BPF_EVENTS=y"
    ),
    "raw_tracepoint": _Feature(
        "tracepoints cost more; sampling does not need it", "boot a kernel with CONFIG_BPF_EVENTS=y"
    ),
    "tp_btf": _Feature(
        "tracepoints cost a little more; sampling does not need it",
        "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
    ),
    "fentry": _Feature(
        _KERNEL_PROBES, "boot a kernel with CONFIG_FUNCTION_TRACER=y and CONFIG_DEBUG_INFO_BTF=y"
    ),
    "kprobe": _Feature(_KERNEL_PROBES, "boot a kernel with CONFIG_KPROBES=y"),
    "uprobe": _Feature(
        "functions of programs cannot be probed; sampling does not need it",
        "boot a kernel with CONFIG_UPROBES=y",
    ),
}
_REFUSED = ("EPERM", "EACCES")


def _feature(facts: HostFacts, group: str, name: str, key: str) -> Finding:
    """What came of trying a feature: there, not there, refused, or not tried for lack of privileges."""
    feature = _FEATURES[key]
    if key not in facts.features:
        detail = "not tried: the native core could not be loaded"
        return Finding(group, name, State.UNKNOWN, detail, feature.cost, "make build", feature.required)
    error = facts.features[key]
    if error is None:
        return Finding(group, name, State.OK, "works", required=feature.required)
    if error not in _REFUSED:
        detail = f"this kernel or machine has none ({error})"
        return Finding(group, name, State.MISSING, detail, feature.cost, feature.enable, feature.required)
    if _may_try(facts):
        detail = f"refused ({error}) in spite of the capabilities"
        enable = "lift the lockdown, security module or container filter (seccomp) that refuses it"
        return Finding(group, name, State.MISSING, detail, feature.cost, enable, feature.required)
    detail = f"sudo sberf doctor can tell ({error})"
    return Finding(group, name, State.UNKNOWN, detail, required=feature.required)


def _may_try(facts: HostFacts) -> bool:
    return "CAP_SYS_ADMIN" in facts.capabilities or {"CAP_BPF", "CAP_PERFMON"} <= facts.capabilities
