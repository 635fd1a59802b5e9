"""Which function symbols an ELF file has: read without sberf, to check sberf against."""

from __future__ import annotations

import bisect
import struct
from dataclasses import dataclass
from pathlib import Path

_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_PT_LOAD = 1


@dataclass(frozen=True)
class FunctionSymbols:
    """Where the functions of a file lie, as sorted ranges of file offsets.

    Args:
        has_symtab: Is there a .symtab with functions (the file is not stripped)?
        ranges: (begin, end) of every sized function symbol of both tables.
    """

    has_symtab: bool
    ranges: tuple[tuple[int, int], ...]

    def covers(self, offset: int) -> bool:
        """Does a symbol cover this file offset?"""
        # A large function may hold smaller ones: look at some before.
        at = bisect.bisect_right(self.ranges, (offset, 1 << 64))
        return any(begin <= offset < end for begin, end in self.ranges[max(0, at - 16) : at])


def function_symbols(path: Path) -> FunctionSymbols | None:
    """The function symbols of a 64-bit little-endian ELF file; None for anything else."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if data[:6] != b"\x7fELF\x02\x01":
        return None
    # Elf64_Ehdr: e_phoff 32, e_shoff 40; e_phentsize 54, e_phnum 56, e_shentsize 58, e_shnum 60
    e_phoff, e_shoff = struct.unpack_from("<QQ", data, 32)
    e_phentsize, e_phnum, e_shentsize, e_shnum = struct.unpack_from("<HHHH", data, 54)
    segments = []
    for i in range(e_phnum):
        # Elf64_Phdr: p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz
        p_type, _, p_offset, p_vaddr, _, p_filesz = struct.unpack_from(
            "<IIQQQQ", data, e_phoff + i * e_phentsize
        )
        if p_type == _PT_LOAD:
            segments.append((p_vaddr, p_vaddr + p_filesz, p_offset - p_vaddr))
    ranges: set[tuple[int, int]] = set()
    has_symtab = False
    for i in range(e_shnum):
        # Elf64_Shdr: sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size
        _, sh_type, _, _, sh_offset, sh_size = struct.unpack_from("<IIQQQQ", data, e_shoff + i * e_shentsize)
        if sh_type in (_SHT_SYMTAB, _SHT_DYNSYM):
            found = _functions(data[sh_offset : sh_offset + sh_size], segments)
            has_symtab |= sh_type == _SHT_SYMTAB and bool(found)
            ranges |= found
    return FunctionSymbols(has_symtab, tuple(sorted(ranges)))


def _functions(table: bytes, segments: list[tuple[int, int, int]]) -> set[tuple[int, int]]:
    ranges = set()
    # Elf64_Sym: st_name, st_info, st_other, st_shndx, st_value, st_size
    for _, st_info, _, st_shndx, st_value, st_size in struct.iter_unpack(
        "<IBBHQQ", table[: len(table) // 24 * 24]
    ):
        if st_info & 15 in (_STT_FUNC, _STT_GNU_IFUNC) and st_shndx and st_size:
            for begin, end, shift in segments:
                if begin <= st_value < end:
                    ranges.add((st_value + shift, st_value + st_size + shift))
    return ranges
