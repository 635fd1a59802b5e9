"""Flame graphs: distinct stacks merged into a trie of calls, and the difference of two of them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from sberf.analysis.filters import Filters
from sberf.analysis.selection import NO_FILTERS
from sberf.analysis.stack_counts import Frame, StackCount, StackCounts, stack_counts
from sberf.errors import QueryError
from sberf.recording.recording import Recording

GroupBy = Literal["comm", "pid", "container", "none"]

GROUP_KIND = "group"
"""``Frame.kind`` of what is no function: the root, threads and processes, folded frames."""

ROOT = Frame("all", "", GROUP_KIND, None, None, False)
FOLDED = Frame("[smaller frames]", "", GROUP_KIND, None, None, False)

# Two shares differ significantly when they are this many standard errors apart (5 % level).
SIGNIFICANT_Z = 1.96


@dataclass(frozen=True)
class Trie:
    """Stacks merged where they begin with the same frames.

    The nodes are in preorder (a node, then its subtrees; siblings by name); node 0 is the root.
    All arrays have one element a node.

    Args:
        frames: The distinct frames, ordered by name.
        frame: Index into ``frames``.
        parent: Index of the parent node; the root's is 0.
        depth: Number of nodes above.
    """

    frames: tuple[Frame, ...]
    frame: array[int]
    parent: array[int]
    depth: array[int]

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True)
class NodeWeights:
    """What the nodes of a :class:`Trie` weigh; one element a node.

    Args:
        total: Weight of the stacks that run through the node: its own and its children's.
        self_: Weight of the stacks that end in it.
        total_samples: Number of samples that run through it.
        self_samples: Number of samples that end in it.
    """

    total: array[int]
    self_: array[int]
    total_samples: array[int]
    self_samples: array[int]


@dataclass(frozen=True)
class FlameGraph:
    """The stacks of one event as a trie.

    Args:
        event: The event's name.
        unit: Unit of the weights: ``ns`` or ``count``.
        inverted: Whether the root's children are the functions that ran (each with its callers
            above it) instead of the threads' entries.
        trie: The nodes.
        weights: Their weights.
        counts: The stacks the trie was made of, with how they ended.
    """

    event: str
    unit: str
    inverted: bool
    trie: Trie
    weights: NodeWeights
    counts: StackCounts


@dataclass(frozen=True)
class FlameDiff:
    """Two recordings in one trie.

    Shares are what is compared: two recordings hardly ever have the same length or load.

    Args:
        event: The event's name.
        unit: Unit of the weights: ``ns`` or ``count``.
        inverted: As in :class:`FlameGraph`.
        trie: Every node that one of the two has.
        before: The weights in the first recording, 0 where it lacks the node.
        after: The weights in the second recording.
        counts: The stacks of the first and the second recording.
    """

    event: str
    unit: str
    inverted: bool
    trie: Trie
    before: NodeWeights
    after: NodeWeights
    counts: tuple[StackCounts, StackCounts]

    def shares(self, node: int) -> tuple[float, float]:
        """The node's share of the first and of the second recording's weight, each 0 to 1."""
        return _share(self.before.total, node), _share(self.after.total, node)

    def change(self, node: int) -> float:
        """How much the node's share grew: -1 (gone) over 0 (the same) to 1 (new).

        This is (after - before) / (after + before), and 0 where the difference is no larger than
        chance makes it: the two-proportion z-test on the numbers of samples, pooled, at the 5 % level
        (https://en.wikipedia.org/wiki/Two-proportion_Z-test).
        """
        before, after = self.shares(node)
        if before == after or abs(self._z_score(node)) < SIGNIFICANT_Z:
            return 0.0
        return (after - before) / (after + before)

    def _z_score(self, node: int) -> float:
        all_a, all_b = self.before.total_samples[0], self.after.total_samples[0]
        hits_a, hits_b = self.before.total_samples[node], self.after.total_samples[node]
        if not all_a or not all_b:
            return 0.0
        pooled = (hits_a + hits_b) / (all_a + all_b)
        variance = pooled * (1 - pooled) * (1 / all_a + 1 / all_b)
        return float((hits_b / all_b - hits_a / all_a) / variance**0.5) if variance else 0.0


def flame_graph(
    recording: Recording,
    filters: Filters = NO_FILTERS,
    *,
    by: GroupBy = "comm",
    inverted: bool = False,
) -> FlameGraph:
    """The flame graph of one event of a recording.

    Args:
        recording: The recording.
        filters: Which samples to count; without an event the first recorded one.
        by: What stands below the stacks' first functions: the thread's name (``comm``), the process
            with its PID (``pid``), the container and in it the thread's name (``container``) or nothing.
        inverted: Merge the stacks from the function that ran up to the thread's entry.

    Raises:
        QueryError: The filters' event was not recorded.
        RecordingError: The recording is damaged.
    """
    return graph_of(_counts(recording, filters, by), inverted=inverted)


def flame_diff(
    before: Recording,
    after: Recording,
    filters: tuple[Filters, Filters] = (NO_FILTERS, NO_FILTERS),
    *,
    by: GroupBy = "comm",
    inverted: bool = False,
) -> FlameDiff:
    """What grew and what shrank between two recordings of the same event.

    Args:
        before, after: The recordings.
        filters: Which samples of the first and of the second recording to count.
        by, inverted: As in :func:`flame_graph`.

    Raises:
        QueryError: The filters' event was not recorded, or the two events differ.
        RecordingError: A recording is damaged.
    """
    counts = _counts(before, filters[0], by), _counts(after, filters[1], by)
    return diff_of(*counts, inverted=inverted)


def graph_of(counts: StackCounts, *, inverted: bool = False) -> FlameGraph:
    """The flame graph of stacks that are already counted."""
    trie, (weights,) = _build((counts,), inverted)
    return FlameGraph(counts.event, counts.unit, inverted, trie, weights, counts)


def diff_of(before: StackCounts, after: StackCounts, *, inverted: bool = False) -> FlameDiff:
    """The difference of two lots of stacks that are already counted.

    Raises:
        QueryError: They count different events.
    """
    if before.event != after.event:
        raise QueryError(
            f"'{before.event}' and '{after.event}' cannot be compared",
            "choose an event that both recordings have with --event",
        )
    trie, (first, second) = _build((before, after), inverted)
    return FlameDiff(before.event, before.unit, inverted, trie, first, second, (before, after))


def fold_graph(graph: FlameGraph, min_share: float) -> FlameGraph:
    """The graph with the children of a node that are under ``min_share`` of all merged into one node."""
    limit = min_share * graph.weights.total[0]
    total = graph.weights.total
    trie, (weights,) = _fold(graph.trie, (graph.weights,), lambda node: total[node] < limit)
    return replace(graph, trie=trie, weights=weights)


def fold_diff(diff: FlameDiff, min_share: float) -> FlameDiff:
    """The difference with what is under ``min_share`` in both recordings folded as in :func:`fold_graph`."""
    trie, (before, after) = _fold(
        diff.trie, (diff.before, diff.after), lambda node: max(diff.shares(node)) < min_share
    )
    return replace(diff, trie=trie, before=before, after=after)


def _share(totals: array[int], node: int) -> float:
    return totals[node] / totals[0] if totals[0] else 0.0


def _counts(recording: Recording, filters: Filters, by: GroupBy) -> StackCounts:
    by_container = by == "container"
    by_comm = by == "comm" or by_container
    return stack_counts(
        recording, filters, by_comm=by_comm, by_process=by == "pid", by_container=by_container
    )


def _build(recordings: Sequence[StackCounts], inverted: bool) -> tuple[Trie, list[NodeWeights]]:
    """One trie over all recordings' stacks, with each recording's weights.

    Sorted, the stacks are the trie's paths in preorder: each shares a beginning with the one
    before it, and the rest of it are new nodes.
    """
    frames, rank = _ranked_frames(recordings)
    stacks = sorted(
        (path[::-1] if inverted else path, which, stack.weight, stack.samples)
        for which, counts in enumerate(recordings)
        for path, stack in _paths(counts, rank)
    )
    frame, parent, depth = array("I", [rank[ROOT]]), array("I", [0]), array("H", [0])
    ends = array("I")  # the node in which each stack ends
    nodes_of_path: list[int] = []
    depths = array("H", range(max((len(path) for path, *_ in stacks), default=0) + 1))
    previous: tuple[int, ...] = ()
    for path, *_ in stacks:
        shared = _shared_length(previous, path)
        if shared < len(path):
            first, count = len(frame), len(path) - shared
            frame.extend(path[shared:])
            depth.extend(depths[shared + 1 : len(path) + 1])
            parent.append(nodes_of_path[shared - 1] if shared else 0)
            parent.extend(range(first, first + count - 1))
            del nodes_of_path[shared:]
            nodes_of_path.extend(range(first, first + count))
            previous = path
        ends.append(nodes_of_path[len(path) - 1])
    trie = Trie(frames, frame, parent, depth)
    return trie, [_weigh(parent, ends, stacks, which) for which in range(len(recordings))]


_WeighedPath = tuple[tuple[int, ...], int, int, int]


def _weigh(parent: array[int], ends: array[int], stacks: list[_WeighedPath], which: int) -> NodeWeights:
    """The weights of the stacks of recording ``which``."""
    self_, self_samples = (array("Q", bytes(8 * len(parent))) for _ in range(2))
    for end, (_, owner, weight, samples) in zip(ends, stacks, strict=True):
        if owner == which:
            self_[end] += weight
            self_samples[end] += samples
    return _with_totals(parent, self_, self_samples)


def _with_totals(parent: array[int], self_: array[int], self_samples: array[int]) -> NodeWeights:
    total, total_samples = self_[:], self_samples[:]
    for node in range(len(total) - 1, 0, -1):
        above = parent[node]
        total[above] += total[node]
        total_samples[above] += total_samples[node]
    return NodeWeights(total, self_, total_samples, self_samples)


def _shared_length(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many elements the two begin with in common."""
    shared = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        shared += 1
    return shared


def _who(stack: StackCount) -> tuple[str | None, str | None, int | None]:
    return stack.container, stack.comm, stack.pid


def _groups(stack: StackCount) -> list[Frame]:
    """The frames for the container, and the thread or process, that the stack belongs to."""
    names = [] if stack.container is None else [stack.container]
    if stack.comm is not None or stack.pid is not None:
        name = stack.comm if stack.comm is not None else "[unknown]"
        names.append(name if stack.pid is None else f"{name} ({stack.pid})")
    return [Frame(name, "", GROUP_KIND, None, None, False) for name in names]


def _identity(frame: Frame) -> tuple[str, str, str, bool]:
    """What makes two frames the same function."""
    return frame.name, frame.module, frame.kind, frame.inlined


def _ranked_frames(recordings: Sequence[StackCounts]) -> tuple[tuple[Frame, ...], dict[Frame, int]]:
    """The distinct frames of all recordings by name, and for each frame its place among them.

    The same function keeps the file and line of the first recording that knows them.
    """
    groups = {_who(stack): stack for counts in recordings for stack in counts.stacks}
    seen: dict[tuple[str, str, str, bool], Frame] = {}
    everything = list(
        chain((ROOT,), *(counts.frames for counts in recordings), *map(_groups, groups.values()))
    )
    for frame in everything:
        known = seen.setdefault(_identity(frame), frame)
        if known.file is None and frame.file is not None:
            seen[_identity(frame)] = frame
    order = {identity: index for index, identity in enumerate(sorted(seen))}
    return tuple(seen[identity] for identity in order), {f: order[_identity(f)] for f in everything}


def _paths(counts: StackCounts, rank: dict[Frame, int]) -> Iterable[tuple[tuple[int, ...], StackCount]]:
    """Each stack as the ranks of its frames, root first, below the rank of its thread or process."""
    ranks = [rank[frame] for frame in counts.frames]
    groups: dict[tuple[str | None, str | None, int | None], tuple[int, ...]] = {}
    for stack in counts.stacks:
        who = _who(stack)
        if who not in groups:
            groups[who] = tuple(rank[group] for group in _groups(stack))
        yield groups[who] + tuple(map(ranks.__getitem__, stack.frames)), stack


def _fold(
    trie: Trie, lots: Sequence[NodeWeights], is_small: Callable[[int], bool]
) -> tuple[Trie, list[NodeWeights]]:
    """Merge the small children of each node into one, so that all sums stay what they were."""
    # What is below a small node is small as well: a frame's children are never larger than it.
    kept = [node for node in range(len(trie)) if node == 0 or not is_small(node)]
    small = _small_children(trie, set(kept))
    # The new nodes: an old node, or the small children of an old node.
    rows: list[tuple[int, list[int] | None]] = []
    for node in kept:
        rows.append((node, None))
        if node in small:
            rows.append((node, small[node]))
    place = {node: index for index, (node, merged) in enumerate(rows) if merged is None}
    folded = len(trie.frames)
    new = Trie(
        (*trie.frames, FOLDED) if small else trie.frames,
        array("I", [folded if merged else trie.frame[node] for node, merged in rows]),
        array("I", [place[node if merged else trie.parent[node]] for node, merged in rows]),
        array("H", [trie.depth[node] + bool(merged) for node, merged in rows]),
    )

    def summed(own: array[int], totals: array[int]) -> array[int]:
        sums = (sum(totals[child] for child in merged) if merged else own[node] for node, merged in rows)
        return array("Q", sums)

    return new, [
        _with_totals(new.parent, summed(lot.self_, lot.total), summed(lot.self_samples, lot.total_samples))
        for lot in lots
    ]


def _small_children(trie: Trie, kept: set[int]) -> dict[int, list[int]]:
    """For each kept node the children that are not kept."""
    small: dict[int, list[int]] = {}
    for node in range(1, len(trie)):
        if node not in kept and trie.parent[node] in kept:
            small.setdefault(trie.parent[node], []).append(node)
    return small
