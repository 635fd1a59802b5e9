"""A flame graph as JSON; docs/flame.md describes the fields."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sberf.analysis.flame import FlameDiff, FlameGraph, NodeWeights


def flame_json(graph: FlameGraph | FlameDiff) -> str:
    """One JSON object in ASCII: the frames, and the trie's nodes in preorder as columns."""
    trie = graph.trie
    nodes: dict[str, Any] = {
        "frame": list(trie.frame),
        "parent": list(trie.parent),
        "depth": list(trie.depth),
    }
    if isinstance(graph, FlameDiff):
        nodes |= {"before": _columns(graph.before), "after": _columns(graph.after)}
        nodes["change"] = [round(graph.change(node), 6) for node in range(len(trie))]
    else:
        nodes |= _columns(graph.weights)
    fields = {
        "event": graph.event,
        "unit": graph.unit,
        "inverted": graph.inverted,
        "frames": [asdict(frame) for frame in trie.frames],
        "nodes": nodes,
    }
    return json.dumps(fields).replace("\x7f", "\\u007f")  # the one control character that JSON lets through


def _columns(weights: NodeWeights) -> dict[str, list[int]]:
    return {
        "total": list(weights.total),
        "self": list(weights.self_),
        "total_samples": list(weights.total_samples),
        "self_samples": list(weights.self_samples),
    }
