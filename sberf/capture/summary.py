"""What a finished capture says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sberf.units import format_bytes, format_count, plural

if TYPE_CHECKING:
    from sberf.capture.session import Stats


def written(output: Path, meta: dict[str, Any], stats: Stats) -> str:
    """One sentence: what was written, how many samples of how many processes."""
    duration_s = (meta["window"]["end_ns"] - meta["window"]["start_ns"]) / 1e9
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return (
        f"wrote {output} ({format_bytes(size)}): {plural(meta['rows']['samples'], 'sample')} "
        f"of {plural(stats.processes, 'process')} in {duration_s:.2f} s"
    )


def losses(meta: dict[str, Any], ring_bytes: int) -> list[str]:
    """A sentence for each kind of loss, with what to do about it; empty when nothing was lost."""
    lost = meta["losses"]
    lines = list(meta["warnings"])
    if lost["dropped_records"]:
        bigger = format_bytes(4 * ring_bytes).replace(" ", "").replace("iB", "")
        lines.append(
            f"lost {format_count(lost['dropped_records'])} records: the ring buffers were full; "
            f"try --buffer {bigger} or a lower frequency"
        )
    if lost["missed_samples"]:
        lines.append(
            f"the kernel skipped {format_count(lost['missed_samples'])} samples: another BPF program ran"
        )
    if lost["throttled"]:
        lines.append(
            f"the kernel throttled the events {format_count(lost['throttled'])} times; lower the frequency"
        )
    if lost["lost_sideband"]:
        lines.append(
            f"lost {format_count(lost['lost_sideband'])} records of new mappings and names: "
            "some frames may have no name"
        )
    before, after = lost["max_sample_rate_before"], lost["max_sample_rate_after"]
    if before and after and after < before:
        lines.append(f"the kernel lowered perf_event_max_sample_rate from {before} to {after} Hz meanwhile")
    return lines
