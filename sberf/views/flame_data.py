"""A flame graph as data for a page: what each frame looks like, and all nodes packed small."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from math import gcd
from typing import Any

from sberf.analysis.flame import GROUP_KIND, SIGNIFICANT_Z, FlameDiff, FlameGraph, NodeWeights
from sberf.analysis.stack_counts import Frame
from sberf.views.flame_about import About
from sberf.views.text import printable

KINDS = ("kernel", "user", "inlined", "jit", "unknown", "group")
_KIND_OF_MODULE = {
    "kernel": "kernel",
    "kernel_module": "kernel",
    "bpf": "kernel",
    "elf": "user",
    "vdso": "user",
    "jit": "jit",
    GROUP_KIND: "group",
}
_COMPRESSION_LEVEL = 6


def asset(name: str) -> str:
    """The text of a file of ``sberf/views/assets``."""
    return resources.files("sberf.views").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def palette() -> dict[str, Any]:
    """For each of ``KINDS`` its label and, for each theme: first and last hue, saturation, lightness."""
    colours: dict[str, Any] = json.loads(asset("flame_palette.json"))
    return colours


def colour_kind(frame: Frame) -> str:
    """Which of ``KINDS`` a frame is drawn as."""
    kind = _KIND_OF_MODULE.get(frame.kind, "unknown")
    return "inlined" if frame.inlined and kind == "user" else kind


def shade(frame: Frame) -> int:
    """Which of 32 shades of its kind a frame has: the upper three bits are its hue, the others its lightness.

    Functions of a module share the hue; the kernel is one module, so there the name chooses it.
    """
    by_name = zlib.crc32(frame.name.encode(errors="backslashreplace"))
    by_module = zlib.crc32(frame.module.encode(errors="backslashreplace"))
    hue = by_name >> 8 if colour_kind(frame) in ("kernel", "group") else by_module
    return (hue % 8) << 2 | by_name % 4


def payload(graph: FlameGraph | FlameDiff, about: About, show_inverted: bool) -> str:
    """The graph and the words around it, as base64 that ``decodePayload`` in flame_profile.js reads.

    The page makes the inverted view itself; ``show_inverted`` says whether it starts with it.

    The block is deflated: the length of the JSON text as a little-endian 32-bit number, the JSON text, and
    then the columns that it lists.  Being base64, it is inert whatever names are in it.
    """
    columns, scales = _columns(graph)
    packed = [_pack(name, values, scales.get(name, 1)) for name, values in columns.items()]
    head: dict[str, Any] = {
        "title": about.title,
        "facts": about.facts,
        "warnings": about.warnings,
        "unit": graph.unit,
        "inverted": show_inverted,
        "comparison": isinstance(graph, FlameDiff),
        "significant_z": SIGNIFICANT_Z,
        "kinds": KINDS,
        "palette": palette(),
        **_frame_table(graph.trie.frames),
        "nodes": len(graph.trie),
        "columns": [description for description, _ in packed],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    block = b"".join([len(text).to_bytes(4, "little"), text, *(data for _, data in packed)])
    return base64.b64encode(zlib.compress(block, _COMPRESSION_LEVEL)).decode()


def _frame_table(frames: Iterable[Frame]) -> dict[str, Any]:
    """Frames by columns; modules and files, which are few, by index."""
    modules: dict[str, int] = {}
    files: dict[str, int] = {}
    table: dict[str, list[Any]] = {key: [] for key in ("name", "module", "file", "line", "kind", "shade")}
    for frame in frames:
        table["name"].append(printable(frame.name))
        table["module"].append(modules.setdefault(printable(frame.module), len(modules)))
        table["file"].append(files.setdefault(printable(frame.file or ""), len(files)))
        table["line"].append(frame.line or 0)
        table["kind"].append(KINDS.index(colour_kind(frame)))
        table["shade"].append(shade(frame))
    return {"frames": table, "modules": list(modules), "files": list(files)}


def _columns(graph: FlameGraph | FlameDiff) -> tuple[dict[str, Sequence[int]], dict[str, int]]:
    """What is stored of each node, and by which number the values of a column are divided."""
    lots: dict[str, NodeWeights]
    lots = (
        {"before": graph.before, "after": graph.after}
        if isinstance(graph, FlameDiff)
        else {"all": graph.weights}
    )
    columns: dict[str, Sequence[int]] = {"frame": graph.trie.frame, "depth": graph.trie.depth}
    scales = {}
    for name, lot in lots.items():
        scales[f"{name}_weight"] = scale = _scale(lot)
        columns[f"{name}_weight"] = array("Q", [weight // scale for weight in lot.self_])
        if columns[f"{name}_weight"] != lot.self_samples:
            columns[f"{name}_samples"] = lot.self_samples
    return columns, scales


def _scale(lot: NodeWeights) -> int:
    """A divisor of all weights: a sample's weight if all have the same; then samples need no column."""
    per_sample = lot.total[0] // (lot.total_samples[0] or 1)
    if all(w == per_sample * s for w, s in zip(lot.self_, lot.self_samples, strict=True)):
        return per_sample or 1
    return gcd(*set(lot.self_)) or 1


def _pack(name: str, values: Sequence[int], scale: int) -> tuple[dict[str, Any], bytes]:
    """A column as byte planes: the lowest byte of every value, then the second byte of every value, ..."""
    width = max(1, (max(values, default=0).bit_length() + 7) // 8)
    numbers = array("Q", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    data = numbers.tobytes()
    return {"name": name, "bytes": width, "scale": scale}, b"".join(data[plane::8] for plane in range(width))
