"""Call trees and stack counts with known answers."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

import sberf
from sberf.analysis import CallTree, Filters, call_tree, functions, stack_counts
from sberf.analysis import samples as single_samples
from sberf.errors import UsageError
from sberf.recording.recording import Recording
from tests.unit.synthetic import PERIOD_NS, RecordingBuilder


@pytest.fixture
def build() -> RecordingBuilder:
    return RecordingBuilder()


def opened(build: RecordingBuilder, tmp_path: Path) -> Recording:
    return sberf.open(build.write(tmp_path / "data"))


def outline(tree: CallTree) -> list[str]:
    """``  work 3/5``: a node's own and total samples, indented by its depth; checks the sums."""
    check_sums(tree)
    return [f"{'  ' * n.depth}{n.name} {n.self_samples}/{n.total_samples}" for n in tree.nodes]


def check_sums(tree: CallTree) -> None:
    """A node weighs what it has itself, what its children have, and what is hidden."""
    weights = [node.self_weight + node.hidden_weight for node in tree.nodes]
    for index, node in enumerate(tree.nodes):
        if node.parent is None:
            assert index == 0
            continue
        assert node.parent < index
        assert node.depth == tree.nodes[node.parent].depth + 1
        weights[node.parent] += node.total_weight
    assert weights == [node.total_weight for node in tree.nodes]


def test_tree(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main;work", samples=1)
    build.add("app", 10, "main;work;malloc", samples=4)
    build.add("app", 10, "main;idle", samples=2)
    build.add("app", 10, "start", samples=1)
    tree = call_tree(opened(build, tmp_path))
    assert outline(tree) == [
        "all 0/8",
        "  main 0/7",
        "    work 1/5",
        "      malloc 4/4",
        "    idle 2/2",
        "  start 1/1",
    ]
    assert tree.nodes[0].total_weight == 8 * PERIOD_NS


def test_inverted(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main;a;malloc", samples=4)
    build.add("app", 10, "main;b;malloc", samples=2)
    tree = call_tree(opened(build, tmp_path), inverted=True)
    assert outline(tree) == [
        "all 0/6",
        "  malloc 0/6",
        "    a 0/4",
        "      main 4/4",
        "    b 0/2",
        "      main 2/2",
    ]


def test_groups(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main", samples=1)
    build.add("app", 11, "main", samples=2)
    build.add("cat", 12, "main", samples=4)
    tree = call_tree(opened(build, tmp_path), by=["process", "pid"])
    assert outline(tree) == [
        "all 0/7",
        "  cat 0/4",
        "    12 0/4",
        "      main 4/4",
        "  app 0/3",
        "    11 0/2",
        "      main 2/2",
        "    10 0/1",
        "      main 1/1",
    ]
    assert [(node.kind, node.module) for node in tree.nodes[1:4]] == [
        ("group", "process"),
        ("group", "pid"),
        ("elf", "cat"),
    ]
    with pytest.raises(UsageError, match="cannot be grouped by 'sym'"):
        call_tree(opened(RecordingBuilder(), tmp_path / "b"), by=["sym"])


def test_min_percent_hides_and_says_so(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main;hot;deep", samples=90)
    build.add("app", 10, "main;warm", samples=8)
    build.add("app", 10, "main;cold;deep", samples=1)
    build.add("app", 10, "main;cool", samples=1)
    tree = call_tree(opened(build, tmp_path), min_percent=5)
    assert outline(tree) == ["all 0/100", "  main 0/100", "    hot 0/90", "      deep 90/90", "    warm 8/8"]
    assert (tree.nodes[1].hidden_children, tree.nodes[1].hidden_weight) == (2, 2 * PERIOD_NS)


def test_deep_stacks(build: RecordingBuilder, tmp_path: Path) -> None:
    """127 kernel frames on 1024 user frames: deeper than Python's recursion limit."""
    build.add("app", 10, ";".join(f"f{i % 50}" for i in range(1151)))
    tree = call_tree(opened(build, tmp_path))
    assert len(tree.nodes) == 1152
    check_sums(tree)


def test_random_stacks_against_a_plain_count(build: RecordingBuilder, tmp_path: Path) -> None:
    rng = random.Random(1)
    paths: Counter[tuple[str, ...]] = Counter()
    for _ in range(200):
        stack = [rng.choice("abcde") for _ in range(rng.randint(1, 8))]
        number = rng.randint(1, 3)
        build.add("app", rng.choice([10, 11]), ";".join(stack), samples=number)
        for depth in range(1, len(stack) + 1):
            paths[tuple(stack[:depth])] += number
    recording = opened(build, tmp_path)
    tree = call_tree(recording)
    check_sums(tree)
    names: list[tuple[str, ...]] = []
    for node in tree.nodes:
        names.append(() if node.parent is None else (*names[node.parent], node.name))
    assert dict(zip(names[1:], (n.total_samples for n in tree.nodes[1:]), strict=True)) == paths
    totals = {row.sym: row.self_samples for row in functions(recording, by=["sym"]).rows}
    inverted = call_tree(recording, inverted=True)
    check_sums(inverted)
    assert {n.name: n.total_samples for n in inverted.nodes if n.depth == 1} == {
        k: v for k, v in totals.items() if v
    }


def test_stack_counts(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main;work", samples=3)
    build.add("app", 11, "main;work", samples=2, tid=12, thread_comm="worker")
    build.add("cat", 13, "main;libc.so.6!read", samples=1)
    recording = opened(build, tmp_path)

    def found(**options: bool) -> set[tuple[str | None, int | None, str, int]]:
        counts = stack_counts(recording, **options)
        assert counts.total_samples == 6
        assert [stack.weight for stack in counts.stacks] == sorted(
            (s.weight for s in counts.stacks), reverse=True
        )
        return {
            (s.comm, s.pid, ";".join(counts.frames[i].name for i in s.frames), s.samples)
            for s in counts.stacks
        }

    assert found() == {(None, None, "main;work", 5), (None, None, "main;read", 1)}
    assert found(by_process=True) == {
        ("app", 10, "main;work", 3),
        ("app", 11, "main;work", 2),
        ("cat", 13, "main;read", 1),
    }
    assert found(by_comm=True) == {
        ("app", None, "main;work", 3),
        ("worker", None, "main;work", 2),
        ("cat", None, "main;read", 1),
    }


def test_stack_counts_keep_only_frames_in_use(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main;work")
    build.add("cat", 13, "start;read")
    counts = stack_counts(opened(build, tmp_path), Filters(pids=(13,)))
    assert {frame.name for frame in counts.frames} == {"start", "read"}


def test_frame_facts(build: RecordingBuilder, tmp_path: Path) -> None:
    outer = build.frame("outer", "/usr/bin/app", file="a.c", line=7)
    build.inline("inner", outer, file="b.h", line=3)
    build.add("app", 10, "x")
    build.tables["samples"][0]["stack_id"] = build.stack([outer])
    counts = stack_counts(opened(build, tmp_path))
    frames = {frame.name: (frame.file, frame.line, frame.inlined) for frame in counts.frames}
    assert frames == {"outer": ("a.c", 7, False), "inner": ("b.h", 3, True)}


def test_samples_in_the_order_of_time(build: RecordingBuilder, tmp_path: Path) -> None:
    build.meta["sources"].append({"event": "page-faults", "unit": "count", "period": 1})
    build.add("app", 10, "main;work", samples=2, cpu=1)
    build.add("app", 10, "main", event="page-faults", weight=1, tid=11, thread_comm="worker")
    result = single_samples(opened(build, tmp_path))
    found = [
        (s.comm, s.pid, s.tid, s.cpu, s.event, [f.name for f in result.stacks[s.stack]])
        for s in result.samples
    ]
    assert found == [
        ("app", 10, 10, 1, "cpu-clock", ["work", "main"]),
        ("app", 10, 10, 1, "cpu-clock", ["work", "main"]),
        ("worker", 10, 11, 0, "page-faults", ["main"]),
    ]
