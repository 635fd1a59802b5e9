"""The samples in a perf.data, read without perf: its own readers abort on some files' build-ids (6.1)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LOST, _SAMPLE = 2, 9
# enum perf_event_sample_format, in the order in which a sample holds the fields
_IDENTIFIER, _IP, _TID, _TIME = 1 << 16, 1, 2, 4


@dataclass(frozen=True)
class PerfSample:
    """One sample: where, of which process, and when by the clock that perf was told to use."""

    ip: int
    pid: int
    time_ns: int


@dataclass(frozen=True)
class PerfData:
    """A perf.data of one event.

    Args:
        samples: In file order.
        lost: Records that the kernel had no room for.
    """

    samples: tuple[PerfSample, ...]
    lost: int


def read(path: Path) -> PerfData:
    """Read a perf.data that ``perf record`` has finished.

    Raises:
        ValueError: It is none.
    """
    data = path.read_bytes()
    if data[:8] != b"PERFILE2":
        raise ValueError(f"{path} is no perf.data")
    # struct perf_file_header: magic, size, attr_size, then {offset, size} of attrs and data
    attrs_offset, _, data_offset, data_size = struct.unpack_from("<4Q", data, 24)
    # struct perf_event_attr: type, size, config, sample_period, sample_type
    (sample_type,) = struct.unpack_from("<Q", data, attrs_offset + 24)
    at_ip = 8 + (8 if sample_type & _IDENTIFIER else 0)
    if sample_type & (_IP | _TID | _TIME) != _IP | _TID | _TIME:
        raise ValueError(f"{path} has samples without address, process or time")
    fields = struct.Struct("<QIIQ")
    samples, lost = [], 0
    for kind, at in _records(data, data_offset, data_offset + data_size):
        if kind == _SAMPLE:
            ip, pid, _, time_ns = fields.unpack_from(data, at + at_ip)
            samples.append(PerfSample(ip, pid, time_ns))
        elif kind == _LOST:
            lost += struct.unpack_from("<Q", data, at + 16)[0]
    return PerfData(tuple(samples), lost)


def _records(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Type and place of each record; ``struct perf_event_header`` is type, misc, size."""
    header = struct.Struct("<IHH")
    while at + header.size <= end:
        kind, _, size = header.unpack_from(data, at)
        if size < header.size:
            return
        yield kind, at
        at += size
