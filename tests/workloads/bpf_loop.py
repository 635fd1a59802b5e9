"""Runs a BPF program named ``busy_program`` in the kernel, by BPF_PROG_TEST_RUN, for some seconds.

Usage: bpf_loop.py SECONDS
"""

import ctypes
import os
import platform
import struct
import sys
import time

_SYSCALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_PROG_LOAD, _PROG_TEST_RUN = 5, 10
_SOCKET_FILTER = 1
_ROUNDS = 5_000
_libc = ctypes.CDLL(None, use_errno=True)


def _instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """``struct bpf_insn``."""
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)


# r1 = ROUNDS; do r1 -= 1 while r1 != 0; return 0
_PROGRAM = (
    _instruction(0xB7, 1, imm=_ROUNDS)
    + _instruction(0x17, 1, imm=1)
    + _instruction(0x55, 1, off=-2, imm=0)
    + _instruction(0xB7, 0)
    + _instruction(0x95)
)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(_libc.syscall(_SYSCALL, command, buffer, len(attributes)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def main() -> None:
    program = ctypes.create_string_buffer(_PROGRAM, len(_PROGRAM))
    licence = ctypes.create_string_buffer(b"GPL")
    packet = ctypes.create_string_buffer(64)
    load = struct.pack(
        "<IIQQIIQII16s",
        _SOCKET_FILTER, len(_PROGRAM) // 8, ctypes.addressof(program), ctypes.addressof(licence),
        0, 0, 0, 0, 0, b"busy_program",
    )  # fmt: skip
    fd = _bpf(_PROG_LOAD, load)
    run = struct.pack("<IIIIQQII", fd, 0, 64, 0, ctypes.addressof(packet), 0, 10_000, 0)
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end:
        _bpf(_PROG_TEST_RUN, run)


main()
