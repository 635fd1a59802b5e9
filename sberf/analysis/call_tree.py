"""Who called whom: stacks merged into a tree with the weight of every call path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sberf.analysis.filters import Filters
from sberf.analysis.hits import GROUP_KEYS, StackEnd
from sberf.analysis.selection import NO_FILTERS
from sberf.analysis.stack_counts import Frame, GroupedStack, grouped_stacks
from sberf.errors import UsageError
from sberf.recording.recording import Recording

GROUP_KIND = "group"


class CallNode(NamedTuple):
    """One node: a function as called through the nodes above it, a group, or the root.

    Args:
        parent: Index of the node above in ``CallTree.nodes``; None for the root.
        depth: Number of nodes above.
        name: Function name, or the value of a group (a process name, a PID ...), or ``all``.
        module: The module's base name; for a group its key, such as ``pid``.
        kind: The module's kind (see the column ``modules.kind``); ``group`` for groups and the root.
        inlined: Whether the call was inlined into the caller.
        line: Source file and line, ``file:line``, where lines are told apart and known.
        self_weight: Weight of the samples whose stack ends here.
        total_weight: ``self_weight`` and that of all nodes below, hidden ones too.
        self_samples: The same as a number of samples.
        total_samples: The same as a number of samples.
        hidden_children: How many direct children ``min_percent`` left out.
        hidden_weight: The total weight of these.
    """

    parent: int | None
    depth: int
    name: str
    module: str
    kind: str
    inlined: bool
    line: str | None
    self_weight: int
    total_weight: int
    self_samples: int
    total_samples: int
    hidden_children: int
    hidden_weight: int


@dataclass(frozen=True)
class CallTree:
    """A call tree in preorder: a node, then all nodes below it, the heaviest child first.

    Args:
        event: The event's name.
        unit: Unit of the weights: ``ns`` or ``count``.
        by: The keys of the groups, one level each, below the root.
        inverted: Whether children are callers, not callees.
        nodes: The nodes; the first one is the root, whose total weight is all weight.
        ends: How the stacks ended, heaviest first; what ended early lacks callers.
    """

    event: str
    unit: str
    by: tuple[str, ...]
    inverted: bool
    nodes: tuple[CallNode, ...]
    ends: tuple[StackEnd, ...]


def call_tree(
    recording: Recording,
    filters: Filters = NO_FILTERS,
    *,
    by: Sequence[str] = (),
    inverted: bool = False,
    lines: bool = False,
    min_percent: float = 0.0,
) -> CallTree:
    """Merge the stacks of one event into a tree.

    Args:
        recording: The recording.
        filters: Which samples to count; without an event the first recorded one.
        by: Some of container, process, comm, pid, tid, cpu: one level of groups each, above the functions.
        inverted: Begin with the function in which samples were taken; its children are its callers.
        lines: Tell the source lines of a function apart.
        min_percent: Leave out nodes whose total weight is below this part of all weight, in percent.

    Raises:
        UsageError: ``by`` has an unknown key.
        QueryError: The filters' event was not recorded.
        RecordingError: The recording is damaged.
    """
    for key in by:
        if key not in GROUP_KEYS:
            raise UsageError(f"a call tree cannot be grouped by '{key}'", f"keys: {', '.join(GROUP_KEYS)}")
    grouped = grouped_stacks(recording, filters, by, lines=lines)
    labels = list(grouped.frames)
    trie = _Trie(_paths(grouped.stacks, labels, by, inverted))
    least = trie.total_weight[0] * min_percent / 100
    return CallTree(
        event=grouped.event.name,
        unit=grouped.event.unit,
        by=tuple(by),
        inverted=inverted,
        nodes=tuple(_nodes(trie, labels, least, lines)),
        ends=grouped.ends,
    )


_Path = tuple[tuple[int, ...], int, int]


def _paths(
    stacks: Iterable[GroupedStack], labels: list[Frame], by: Sequence[str], inverted: bool
) -> list[_Path]:
    """Each stack as indices into ``labels``, from the tree's root on, with weight and samples; sorted.

    Groups are appended to ``labels``.
    """
    numbers: dict[tuple[str, object], int] = {}

    def number(key: str, value: object) -> int:
        if (key, value) not in numbers:
            numbers[key, value] = len(labels)
            labels.append(Frame(str(value), key, GROUP_KIND, None, None, False))
        return numbers[key, value]

    step = -1 if inverted else 1
    paths = [
        (tuple(map(number, by, stack.group)) + stack.frames[::step], stack.weight, stack.samples)
        for stack in stacks
    ]
    paths.sort()
    return paths


class _Trie:
    """Nodes in preorder by label; one element a node in every list."""

    def __init__(self, paths: list[_Path]) -> None:
        self.parent = [0]
        self.label = [-1]
        self.self_weight = [0]
        self.self_samples = [0]
        self._add(paths)
        self.total_weight = self._sums(self.self_weight)
        self.total_samples = self._sums(self.self_samples)

    def _add(self, paths: list[_Path]) -> None:
        """Sorted paths share what they can with the one before: no node has to be looked up."""
        above = [0]  # the nodes of the path before, from the root on
        previous: tuple[int, ...] = ()
        for labels, weight, samples in paths:
            shared = 0
            for one, other in zip(previous, labels, strict=False):
                if one != other:
                    break
                shared += 1
            del above[shared + 1 :]
            for label in labels[shared:]:
                self.parent.append(above[-1])
                above.append(len(self.label))
                self.label.append(label)
                self.self_weight.append(0)
                self.self_samples.append(0)
            self.self_weight[above[-1]] += weight
            self.self_samples[above[-1]] += samples
            previous = labels

    def _sums(self, own: list[int]) -> list[int]:
        """The sums over subtrees: children follow their parents, so going backwards meets them first."""
        sums = own.copy()
        for node in range(len(sums) - 1, 0, -1):
            sums[self.parent[node]] += sums[node]
        return sums


def _nodes(trie: _Trie, labels: list[Frame], least: float, lines: bool) -> list[CallNode]:
    """The nodes that weigh enough, in preorder, the heaviest child first."""
    children: dict[int, list[int]] = {}
    hidden: dict[int, list[int]] = {}
    for node in range(1, len(trie.label)):
        enough = trie.total_weight[node] >= least
        (children if enough else hidden).setdefault(trie.parent[node], []).append(node)
    nodes: list[CallNode] = []
    pending: list[tuple[int, int | None, int]] = [(0, None, 0)]
    while pending:
        node, parent, depth = pending.pop()
        frame = labels[trie.label[node]] if node else Frame("all", "", GROUP_KIND, None, None, False)
        left_out = hidden.get(node, [])
        index = len(nodes)
        nodes.append(
            CallNode(
                parent=parent,
                depth=depth,
                name=frame.name,
                module=frame.module,
                kind=frame.kind,
                inlined=frame.inlined,
                line=f"{frame.file}:{frame.line}" if lines and frame.file and frame.line else None,
                self_weight=trie.self_weight[node],
                total_weight=trie.total_weight[node],
                self_samples=trie.self_samples[node],
                total_samples=trie.total_samples[node],
                hidden_children=len(left_out),
                hidden_weight=sum(trie.total_weight[child] for child in left_out),
            )
        )
        # Ties keep the order of labels, which is that of names; the last one pushed comes first.
        below = sorted(children.get(node, []), key=lambda child: -trie.total_weight[child])
        pending.extend((child, index, depth + 1) for child in reversed(below))
    return nodes
