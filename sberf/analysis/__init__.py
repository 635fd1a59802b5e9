"""Questions to a recording: each is a function from a recording and filters to a frozen dataclass.

``from sberf.analysis import functions, call_tree``; then ``functions(sberf.open("sberf.data"))``.
"""

from __future__ import annotations

from sberf.analysis.call_tree import CallNode, CallTree, call_tree
from sberf.analysis.filters import Filters
from sberf.analysis.flame import FlameDiff, FlameGraph, flame_diff, flame_graph
from sberf.analysis.functions import FunctionRow, FunctionTable, functions
from sberf.analysis.overview import Overview, overview
from sberf.analysis.samples import Sample, samples
from sberf.analysis.stack_counts import Frame, StackCount, StackCounts, stack_counts
from sberf.analysis.stack_quality import QualityRow, StackQuality, stack_quality

__all__ = [
    "CallNode",
    "CallTree",
    "Filters",
    "FlameDiff",
    "FlameGraph",
    "Frame",
    "FunctionRow",
    "FunctionTable",
    "Overview",
    "QualityRow",
    "Sample",
    "StackCount",
    "StackCounts",
    "StackQuality",
    "call_tree",
    "flame_diff",
    "flame_graph",
    "functions",
    "overview",
    "samples",
    "stack_counts",
    "stack_quality",
]
