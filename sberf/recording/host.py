"""What is known about a machine and about the user who would record on it: facts, no opinions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class HostFacts:
    """One machine, as one user sees it.

    Args:
        kernel: The kernel's release, such as ``6.12.43-amd64``.
        arch: The machine's architecture, such as ``x86_64``.
        user: The effective user's name, or its number when it has none.
        capabilities: Effective capabilities, such as ``CAP_BPF``.
        initial_user_namespace: Whether the capabilities are held on the host, not only in a container's
            user namespace; None: not known.
        initial_pid_namespace: Whether this process sees the host's process IDs; None: not known.
        lockdown: The kernel's lockdown mode (``none``, ``integrity``, ``confidentiality``), ``absent``
            when the kernel has none; None: not known.
        sysctls: Values of ``/proc/sys``, by dotted name; one that is not there is None.
        open_files: Soft and hard limit of open files; None: unlimited.
        tracefs: Where tracefs is mounted.
        tracefs_known: Whether this kernel has tracefs at all.
        cgroups: Where the cgroup v2 hierarchy is mounted, or else a v1 one.
        kernel_symbols: Whether ``/proc/kallsyms`` shows addresses; None: there is no such file.
        features: What the kernel answered when each feature was tried: None: it works, else the errno's
            name (``sberf._native.kernel_features``).
        core_error: Why the native core could not be loaded; ``features`` is empty then.
    """

    kernel: str
    arch: str
    user: str
    capabilities: frozenset[str]
    initial_user_namespace: bool | None
    initial_pid_namespace: bool | None
    lockdown: str | None
    sysctls: Mapping[str, int | None]
    open_files: tuple[int | None, int | None]
    tracefs: str | None
    tracefs_known: bool
    cgroups: str | None
    kernel_symbols: bool | None
    features: Mapping[str, str | None]
    core_error: str | None = None
