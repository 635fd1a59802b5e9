"""Tries with known answers, their sums, and what differs between two."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from sberf.analysis.filters import Filters
from sberf.analysis.flame import (
    FOLDED,
    FlameDiff,
    FlameGraph,
    NodeWeights,
    Trie,
    diff_of,
    flame_diff,
    flame_graph,
    fold_diff,
    fold_graph,
    graph_of,
)
from sberf.analysis.stack_counts import Frame, StackCount, StackCounts
from sberf.errors import QueryError
from sberf.recording.recording import open_recording
from tests.unit.synthetic import PERIOD_NS, RecordingBuilder


def counts(*stacks: tuple[str, int], event: str = "cpu-clock", comm: str | None = None) -> StackCounts:
    """``("a;b", 3)`` is a stack of two functions with three samples of 10 each."""
    names = sorted({name for stack, _ in stacks for name in stack.split(";")})
    frames = tuple(Frame(name, "app", "elf", None, None, False) for name in names)
    counted = tuple(
        StackCount(comm, None, tuple(map(names.index, stack.split(";"))), 10 * samples, samples)
        for stack, samples in stacks
    )
    samples = sum(stack.samples for stack in counted)
    return StackCounts(event, "ns", frames, counted, (), 10 * samples, samples)


def paths(trie: Trie) -> list[str]:
    """Each node as the names on the way to it, without the root."""
    names: list[str] = []
    for node in range(len(trie)):
        above = names[trie.parent[node]] if trie.depth[node] > 1 else ""
        name = trie.frames[trie.frame[node]].name
        names.append("" if node == 0 else f"{above};{name}" if above else name)
    return names


def totals(trie: Trie, weights: NodeWeights) -> dict[str, tuple[int, int]]:
    """Path to its total and its own samples."""
    pairs = zip(weights.total_samples, weights.self_samples, strict=True)
    return dict(zip(paths(trie), pairs, strict=True))


def check_sums(trie: Trie, weights: NodeWeights) -> None:
    """A node is its own weight and its children's; the nodes are in preorder."""
    for total, own in (
        (weights.total, weights.self_),
        (weights.total_samples, weights.self_samples),
    ):
        sums = list(own)
        for node in range(len(trie) - 1, 0, -1):
            assert trie.parent[node] < node
            assert trie.depth[node] == trie.depth[trie.parent[node]] + 1
            sums[trie.parent[node]] += sums[node]
        assert sums == list(total)


def test_known_trie() -> None:
    graph = graph_of(
        counts(("main;work;malloc", 3), ("main;idle", 4), ("main;work", 2), ("main;work;free", 1))
    )
    assert totals(graph.trie, graph.weights) == {
        "": (10, 0),
        "main": (10, 0),
        "main;idle": (4, 4),
        "main;work": (6, 2),
        "main;work;free": (1, 1),
        "main;work;malloc": (3, 3),
    }
    assert graph.weights.total[0] == 100
    check_sums(graph.trie, graph.weights)


def test_recursion_stays_nested() -> None:
    graph = graph_of(counts(("f;f;f", 1), ("f;f", 2)))
    assert totals(graph.trie, graph.weights) == {"": (3, 0), "f": (3, 0), "f;f": (3, 2), "f;f;f": (1, 1)}


def test_inverted_trie() -> None:
    graph = graph_of(counts(("main;a;malloc", 3), ("main;b;malloc", 5), ("main;b", 2)), inverted=True)
    assert totals(graph.trie, graph.weights) == {
        "": (10, 0),
        "b": (2, 0),
        "b;main": (2, 2),
        "malloc": (8, 0),
        "malloc;a": (3, 0),
        "malloc;a;main": (3, 3),
        "malloc;b": (5, 0),
        "malloc;b;main": (5, 5),
    }
    check_sums(graph.trie, graph.weights)


def test_functions_of_different_modules_stay_apart() -> None:
    frames = (Frame("f", "a.so", "elf", None, None, False), Frame("f", "b.so", "elf", None, None, False))
    stacks = (StackCount(None, None, (0,), 10, 1), StackCount(None, None, (1,), 20, 2))
    graph = graph_of(StackCounts("cpu-clock", "ns", frames, stacks, (), 30, 3))
    assert [graph.trie.frames[frame].module for frame in graph.trie.frame[1:]] == ["a.so", "b.so"]
    assert list(graph.weights.total[1:]) == [10, 20]


def test_no_stacks() -> None:
    graph = graph_of(StackCounts("cpu-clock", "ns", (), (), (), 0, 0))
    assert len(graph.trie) == 1
    assert list(graph.weights.total) == [0]


def random_counts(seed: int) -> StackCounts:
    """Different stacks of up to 12 of 9 functions, some a beginning of others."""
    numbers = random.Random(seed)
    stacks: Counter[str] = Counter()
    for _ in range(400):
        stack = [numbers.choice("abcdefghi") for _ in range(numbers.randint(1, 12))]
        stacks[";".join(stack)] += numbers.randint(1, 5)
    return counts(*stacks.items())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("inverted", [False, True])
def test_random_stacks_against_a_plain_count(seed: int, inverted: bool) -> None:
    lot = random_counts(seed)
    graph = graph_of(lot, inverted=inverted)
    expected: Counter[str] = Counter()
    for stack in lot.stacks:
        names = [lot.frames[frame].name for frame in stack.frames]
        names = names[::-1] if inverted else names
        for length in range(len(names) + 1):
            expected[";".join(names[:length])] += stack.samples
    assert {path: total for path, (total, _) in totals(graph.trie, graph.weights).items()} == expected
    check_sums(graph.trie, graph.weights)


def write_recording(path: Path) -> Path:
    builder = RecordingBuilder()
    builder.add("web", 10, "main;serve", samples=6)
    builder.add("web", 11, "main;serve", samples=2)
    builder.add("web", 11, "main;log", samples=1, tid=12, thread_comm="logger")
    builder.add("db", 20, "main;[kernel]!read", samples=3)
    return builder.write(path)


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("comm", {"web": 8, "logger": 1, "db": 3}),
        ("pid", {"web (10)": 6, "web (11)": 3, "db (20)": 3}),
    ],
)
def test_grouping(tmp_path: Path, by: str, groups: dict[str, int]) -> None:
    with open_recording(write_recording(tmp_path / "r")) as recording:
        graph = flame_graph(recording, by=by)  # type: ignore[arg-type]
    found = totals(graph.trie, graph.weights)
    assert {path: total for path, (total, _) in found.items() if path and ";" not in path} == groups


def test_no_grouping(tmp_path: Path) -> None:
    with open_recording(write_recording(tmp_path / "r")) as recording:
        graph = flame_graph(recording, by="none")
    entries = [node for node in range(len(graph.trie)) if graph.trie.depth[node] == 1]
    # web's main and db's main are functions of different modules.
    modules = [graph.trie.frames[graph.trie.frame[node]].module for node in entries]
    assert modules == ["db", "web"]
    assert [graph.weights.total_samples[node] for node in entries] == [3, 9]


def test_filters_and_weights(tmp_path: Path) -> None:
    with open_recording(write_recording(tmp_path / "r")) as recording:
        graph = flame_graph(recording, Filters(comms=("db",)))
    assert graph.weights.total[0] == 3 * PERIOD_NS
    assert totals(graph.trie, graph.weights)["db;main;read"] == (3, 3)


def diff() -> FlameDiff:
    """Of 1000 samples before and 500 after: same as before, doubled, gone, new, and not significant."""
    before = counts(("main;same", 400), ("main;grew", 200), ("main;gone", 390), ("main;chance", 10))
    after = counts(("main;same", 200), ("main;grew", 200), ("main;new", 94), ("main;chance", 6))
    return diff_of(before, after)


def test_diff_has_the_nodes_of_both_and_their_sums() -> None:
    result = diff()
    check_sums(result.trie, result.before)
    check_sums(result.trie, result.after)
    assert totals(result.trie, result.before)["main;gone"] == (390, 390)
    assert totals(result.trie, result.after)["main;gone"] == (0, 0)
    assert totals(result.trie, result.after)["main;new"] == (94, 94)
    assert (result.before.total_samples[0], result.after.total_samples[0]) == (1000, 500)


def test_diff_compares_shares() -> None:
    result = diff()
    at = {path: node for node, path in enumerate(paths(result.trie))}
    assert result.shares(at["main;same"]) == (0.4, 0.4)
    assert result.change(at["main;same"]) == 0
    assert result.change(at["main;grew"]) == pytest.approx((0.4 - 0.2) / 0.6)
    assert result.change(at["main;gone"]) == -1
    assert result.change(at["main;new"]) == 1
    assert result.change(at["main"]) == 0


def test_diff_ignores_chance() -> None:
    result = diff()
    node = paths(result.trie).index("main;chance")
    assert result.shares(node) == (0.01, 0.012)
    assert result.change(node) == 0


def test_swapping_the_recordings_turns_the_signs() -> None:
    there = diff()
    back = diff_of(there.counts[1], there.counts[0])
    assert [back.change(node) for node in range(len(back.trie))] == [
        -there.change(node) for node in range(len(there.trie))
    ]


def test_diff_of_a_recording_with_itself(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "r")
    with open_recording(path) as before, open_recording(path) as after:
        result = flame_diff(before, after)
    assert list(result.before.total) == list(result.after.total)
    assert not any(result.change(node) for node in range(len(result.trie)))


def test_diff_of_different_events_is_refused() -> None:
    with pytest.raises(QueryError, match="cannot be compared"):
        diff_of(counts(("a", 1)), counts(("a", 1), event="page-faults"))


def test_the_same_function_merges_although_its_line_differs() -> None:
    frames = [(Frame("f", "app", "elf", file, line, False),) for file, line in ((None, None), ("f.c", 7))]
    before, after = (
        StackCounts("cpu-clock", "ns", frame, (StackCount(None, None, (0,), 10, 1),), (), 10, 1)
        for frame in frames
    )
    result = diff_of(before, after)
    assert len(result.trie) == 2
    assert result.trie.frames[result.trie.frame[1]].file == "f.c"


def test_folding_keeps_the_sums() -> None:
    graph = graph_of(counts(("main;a;x", 40), ("main;b;y", 50), ("main;c;z", 4), ("main;d", 3), ("main", 3)))
    folded = fold_graph(graph, 0.05)
    assert totals(folded.trie, folded.weights) == {
        "": (100, 0),
        "main": (100, 3),
        f"main;{FOLDED.name}": (7, 7),
        "main;a": (40, 0),
        "main;a;x": (40, 40),
        "main;b": (50, 0),
        "main;b;y": (50, 50),
    }
    check_sums(folded.trie, folded.weights)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 1.0])
def test_folding_random_stacks(share: float) -> None:
    graph: FlameGraph = graph_of(random_counts(1))
    folded = fold_graph(graph, share)
    check_sums(folded.trie, folded.weights)
    assert folded.weights.total[0] == graph.weights.total[0]
    assert all(
        total >= share * graph.weights.total[0] or folded.trie.frames[frame] == FOLDED
        for frame, total in zip(folded.trie.frame[1:], folded.weights.total[1:], strict=True)
    )


def test_folding_a_diff_keeps_what_is_large_in_one_of_both() -> None:
    before = counts(("main;gone", 50), ("main;rest", 49), ("main;small", 1))
    after = counts(("main;rest", 100))
    folded = fold_diff(diff_of(before, after), 0.05)
    assert totals(folded.trie, folded.before) == {
        "": (100, 0),
        "main": (100, 0),
        f"main;{FOLDED.name}": (1, 1),
        "main;gone": (50, 50),
        "main;rest": (49, 49),
    }
    check_sums(folded.trie, folded.after)
