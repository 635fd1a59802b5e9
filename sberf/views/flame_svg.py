"""A flame graph as a static SVG for documents."""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from sberf.analysis.flame import FlameDiff, FlameGraph, Trie
from sberf.analysis.stack_counts import Frame
from sberf.units import format_count, format_percent
from sberf.views.flame_about import About
from sberf.views.flame_data import KINDS, colour_kind, palette, shade
from sberf.views.text import display_width, format_weight, printable, shorten

WIDTH = 1200
_MIN_WIDTH = 0.5  # narrower frames are left out, and so is what they call
_MARGIN = 10
_ROW = 17
_LINE = 16
_FONT_SIZE = 11
# All common monospaced fonts advance by 0.6 em: labels can be cut without measuring.
_ADVANCE = 0.6 * _FONT_SIZE
_FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
_STYLE = (
    f"text {{ font: {_FONT_SIZE}px {_FONT}; fill: #16181d }} "
    ".title { font-size: 15px; font-weight: bold } .muted { fill: #565d69 } .warning { fill: #8a4b00 }"
)


@dataclass(frozen=True)
class _Box:
    """One drawn frame: its node, its left edge and width in pixels."""

    node: int
    left: float
    width: float


def flame_svg(graph: FlameGraph | FlameDiff, about: About, *, width: int = WIDTH) -> str:
    """The picture: flames grow upwards; inverted, they hang.

    Args:
        graph: What to draw.
        about: The words around it.
        width: Width in pixels.
    """
    boxes = list(_boxes(graph, width - 2 * _MARGIN))
    rows = 1 + max(graph.trie.depth[box.node] for box in boxes)
    header = list(_header(about, width))
    top = _MARGIN + _LINE * len(header) + 6
    height = top + rows * _ROW + _LINE + 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(about.title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for line, (kind, text) in enumerate(header):
        parts.append(_text(_MARGIN, _MARGIN + _LINE * line + 12, text, kind))
    for box in boxes:
        depth = graph.trie.depth[box.node]
        parts.append(_frame(graph, box, top + _ROW * (depth if graph.inverted else rows - 1 - depth)))
    parts += _legend(graph, top + rows * _ROW + _LINE + 2)
    return "\n".join([*parts, "</svg>\n"])


def _widths(graph: FlameGraph | FlameDiff) -> list[float]:
    """Each node's width as a share of the whole; of a comparison the mean of both shares."""
    if isinstance(graph, FlameDiff):
        return [sum(graph.shares(node)) / 2 for node in range(len(graph.trie))]
    whole = graph.weights.total[0] or 1
    return [weight / whole for weight in graph.weights.total]


def _boxes(graph: FlameGraph | FlameDiff, pixels: float) -> Iterator[_Box]:
    """The frames that are wide enough; the children of each stand on it, heaviest first."""
    widths = _widths(graph)
    children = _wide_children(graph.trie, widths, _MIN_WIDTH / pixels)
    waiting = [_Box(0, float(_MARGIN), pixels)]
    while waiting:
        box = waiting.pop()
        yield box
        left = box.left
        for child in sorted(children.get(box.node, ()), key=lambda node: (-widths[node], node)):
            waiting.append(_Box(child, left, widths[child] * pixels))
            left += widths[child] * pixels


def _wide_children(trie: Trie, widths: list[float], limit: float) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for node in range(1, len(trie)):
        if widths[node] >= limit:
            children.setdefault(trie.parent[node], []).append(node)
    return children


def _frame(graph: FlameGraph | FlameDiff, box: _Box, top: float) -> str:
    frame = graph.trie.frames[graph.trie.frame[box.node]]
    gap = 1 if box.width > 3 else 0
    name = printable(frame.name)
    parts = [
        f"<g><title>{escape(_details(graph, box.node, frame))}</title>"
        f'<rect x="{box.left:.2f}" y="{top}" width="{box.width - gap:.2f}" height="{_ROW - 1}" '
        f'fill="{_colour(graph, box.node, frame)}"/>'
    ]
    room = int((box.width - 6) / _ADVANCE)
    if room >= min(3, display_width(name)):
        parts.append(_text(box.left + 3, top + 12, shorten(name, room)))
    return "".join([*parts, "</g>"])


def _text(left: float, baseline: float, text: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{left:.2f}" y="{baseline}"{style}>{escape(text)}</text>'


def _details(graph: FlameGraph | FlameDiff, node: int, frame: Frame) -> str:
    """The text that a viewer shows when the pointer rests on a frame."""
    lines = [printable(frame.name)]
    source = frame.file and (f"{frame.file}:{frame.line}" if frame.line else frame.file)
    place = [printable(part) for part in (frame.module, source) if part]
    if place:
        lines.append(", ".join(place))
    lots = (graph.before, graph.after) if isinstance(graph, FlameDiff) else (graph.weights,)
    labels = ("before: ", "after: ") if isinstance(graph, FlameDiff) else ("",)
    for label, lot in zip(labels, lots, strict=True):
        share = lot.total[node] / lot.total[0] if lot.total[0] else 0.0
        weight = format_weight(lot.total[node], graph.unit)
        lines.append(
            f"{label}{format_percent(share)}, {weight} in {format_count(lot.total_samples[node])} samples"
        )
    return "\n".join(lines)


def _colour(graph: FlameGraph | FlameDiff, node: int, frame: Frame) -> str:
    if isinstance(graph, FlameDiff):
        return _change_colour(graph.change(node))
    return _fill(colour_kind(frame), shade(frame))


def _fill(kind: str, shade: int) -> str:
    """The same colours as flame_draw.js in its light theme."""
    first, last, saturation, lightness = palette()[kind]["light"]
    return _hex(first + (last - first) * (shade >> 2) / 7, saturation, lightness + 1.5 * (shade & 3))


def _change_colour(change: float) -> str:
    """The same colours as flame_draw.js in its light theme."""
    strength = abs(change) ** 0.6
    return _hex(8 if change > 0 else 214, 92 * strength, 88 - 16 * strength)


def _hex(hue: float, saturation: float, lightness: float) -> str:
    channels = colorsys.hls_to_rgb(hue / 360, lightness / 100, saturation / 100)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def _header(about: About, width: int) -> Iterator[tuple[str, str]]:
    """The lines above the frames, each with its style."""
    columns = int((width - 2 * _MARGIN) / _ADVANCE)
    yield "title", shorten(about.title, int(columns * _FONT_SIZE / 15))
    plain = ", ".join(value for label, value in about.facts if not label)
    for line in [plain, *(f"{label}: {value}" for label, value in about.facts if label)]:
        yield from (("muted", text) for text in textwrap.wrap(line, columns))
    for warning in about.warnings:
        yield from (("warning", text) for text in textwrap.wrap(warning, columns))


def _legend(graph: FlameGraph | FlameDiff, baseline: float) -> list[str]:
    if isinstance(graph, FlameDiff):
        entries = [
            ("grew", _change_colour(0.3)),
            ("new", _change_colour(1)),
            ("shrank", _change_colour(-0.3)),
            ("gone", _change_colour(-1)),
            ("the same, or no more than chance", _change_colour(0)),
        ]
    else:
        used = {colour_kind(frame) for frame in graph.trie.frames}
        entries = [(palette()[kind]["label"], _fill(kind, 12)) for kind in KINDS if kind in used]
    left = float(_MARGIN)
    parts = []
    for label, colour in entries:
        parts.append(f'<rect x="{left}" y="{baseline - 10}" width="11" height="11" rx="2" fill="{colour}"/>')
        parts.append(_text(left + 16, baseline, label, "muted"))
        left += 16 + _ADVANCE * len(label) + 18
    return parts
