"""What a capture could leave behind in the kernel, on disk and among the processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sberf.errors import UnsupportedError

# The names in bpf/*.bpf.c and native/src/capture/programs.rs; the kernel keeps 15 bytes.
PROGRAMS = ("on_sample_", "on_exec")
MAPS = (
    "rings",
    "cpu_states",
    "cpu_scratch",
    "chosen_cgroups",
    "exec_scratch",
    "cgroup_scratch",
    "known_container",
    "known_programs",
    "seen_stacks",
    "sberf_ring",
    "cpu_bpf.rodata",
)

_SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}
_PR_SET_CHILD_SUBREAPER = 36
# enum bpf_cmd: (get the next ID, get a descriptor by ID); offsets in struct bpf_*_info.
_PROGRAM_COMMANDS, _PROGRAM_NR_MAPS_AT, _PROGRAM_NAME_AT = (11, 13), 52, 64
_MAP_COMMANDS, _MAP_NAME_AT = (12, 14), 24
_LINK_COMMANDS, _LINK_PROGRAM_AT = (31, 30), 8
_OBJ_GET_INFO_BY_FD = 15
_NAME_LEN = 16
_INFO_LEN = 256
_libc = ctypes.CDLL(None, use_errno=True)


class Left(NamedTuple):
    """One thing that is there: what kind, its number or path, and its name."""

    kind: str
    where: int | str
    name: str


def find(directory: Path) -> frozenset[Left]:
    """What there is now of ours: BPF objects, perf events, child processes, unfinished directories."""
    return frozenset([*_bpf_objects(), *_descendants(), *_unfinished(directory)])


def adopt_orphans() -> None:
    """Processes whose parent dies become our children, so that none escapes."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _bpf_objects() -> Iterator[Left]:
    """Those with our names, unless a process that is none of ours holds them: somebody else's capture."""
    others_programs, others_maps = _held_by_others()
    programs = {}
    for identity, descriptor, info in _infos(_PROGRAM_COMMANDS):
        if (name := _name(info, _PROGRAM_NAME_AT)).startswith(PROGRAMS):
            if identity in others_programs:
                others_maps |= _maps_of(descriptor)
                continue
            programs[identity] = name
            yield Left("BPF program", identity, name)
    for identity, _, info in _infos(_MAP_COMMANDS):
        if (name := _name(info, _MAP_NAME_AT)) in MAPS and identity not in others_maps:
            yield Left("BPF map", identity, name)
    for identity, _, info in _infos(_LINK_COMMANDS):
        if (program := struct.unpack_from("<I", info, _LINK_PROGRAM_AT)[0]) in programs:
            yield Left("BPF link", identity, programs[program])


def _held_by_others() -> tuple[set[int], set[int]]:
    """Programs and maps to which processes outside of this test run have descriptors."""
    programs, maps = set(), set()
    ours = {os.getpid(), *_our_descendants(dict(_parents()))}
    for path in _descriptors():
        if int(path.parts[2]) not in ours and "bpf" in _link(path):
            for line in _read(f"/proc/{path.parts[2]}/fdinfo/{path.name}").splitlines():
                key, _, value = line.partition(":")
                if key in ("prog_id", "map_id"):
                    (programs if key == "prog_id" else maps).add(int(value))
    return programs, maps


def _descriptors() -> Iterator[Path]:
    """``/proc/PID/fd/N`` of every process; processes end while we look."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield from list((process / "fd").iterdir())


def _maps_of(descriptor: int) -> set[int]:
    """The maps of a program: ``nr_map_ids`` and ``map_ids`` of struct bpf_prog_info."""
    identities = (ctypes.c_uint32 * 64)()
    info = ctypes.create_string_buffer(_INFO_LEN)
    struct.pack_into("<IQ", info, _PROGRAM_NR_MAPS_AT, len(identities), ctypes.addressof(identities))
    _get_info(descriptor, info)
    return set(identities[: struct.unpack_from("<I", info, _PROGRAM_NR_MAPS_AT)[0]])


def _get_info(descriptor: int, info: ctypes.Array[ctypes.c_char]) -> None:
    _bpf(_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", descriptor, _INFO_LEN, ctypes.addressof(info)))


def _name(info: bytes, at: int) -> str:
    return info[at : at + _NAME_LEN].split(b"\0")[0].decode()


def _infos(commands: tuple[int, int]) -> Iterator[tuple[int, int, bytes]]:
    """The ID, a descriptor and the ``struct bpf_*_info`` of every object of a kind."""
    for identity in _identities(commands[0]):
        try:
            descriptor = _bpf(commands[1], struct.pack("<I", identity))
        except FileNotFoundError:  # freed meanwhile
            continue
        try:
            info = ctypes.create_string_buffer(_INFO_LEN)
            _get_info(descriptor, info)
            yield identity, descriptor, info.raw
        finally:
            os.close(descriptor)


def _identities(command: int) -> Iterator[int]:
    """``union bpf_attr``: start_id, next_id."""
    identity = 0
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("<II", identity, 0) + bytes(120))
        try:
            _call(command, attributes)
        except FileNotFoundError:
            return
        identity = struct.unpack_from("<I", attributes, 4)[0]
        yield identity


def _bpf(command: int, attributes: bytes) -> int:
    return _call(command, ctypes.create_string_buffer(attributes + bytes(128 - len(attributes))))


def _call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    number = _SYSCALL_BPF.get(platform.machine())
    if number is None:
        raise UnsupportedError(f"bpf() has an unknown number on {platform.machine()}")
    result = int(_libc.syscall(number, command, attributes, 128))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _descendants() -> Iterator[Left]:
    """Our living child processes and theirs; zombies that we adopted are buried."""
    for pid in _our_descendants(dict(_parents())):
        if not _bury(pid):
            yield Left("process", pid, _read(f"/proc/{pid}/comm").strip())
    if _holds_perf_events("self"):
        yield Left("perf event", os.getpid(), "of the tests themselves")


def _our_descendants(parents: dict[int, int]) -> Iterator[int]:
    for pid in parents:
        ancestor = parents[pid]
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid():
            yield pid


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (stat := _read(f"/proc/{entry}/stat")):
            yield int(entry), int(stat.rpartition(")")[2].split()[1])


def _bury(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def _holds_perf_events(pid: str) -> bool:
    return any("perf_event" in _link(path) for path in Path(f"/proc/{pid}/fd").iterdir())


def _unfinished(directory: Path) -> Iterator[Left]:
    for pattern in ("*.spool-*", "*.tmp-*", ".*.partial"):
        for path in directory.rglob(pattern):
            yield Left("directory", str(path), path.name)


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:  # closed meanwhile
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
