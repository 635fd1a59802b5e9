"""Each invariant of a recording, broken once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sberf
from sberf.recording.check import Problem
from tests.unit.synthetic import PERIOD_NS, START_NS, RecordingBuilder

LAST_NS = START_NS + 4 * PERIOD_NS


def builder() -> RecordingBuilder:
    """Two processes, the second one of which execs and later exits; PID 10 is used twice."""
    build = RecordingBuilder()
    build.add("app", 10, "main;work", samples=2)
    build.add("sh", 11, "main;fork")
    build.add("tool", 11, "main;libc.so.6!malloc")
    build.add("late", 10, "", end="not_asked")
    processes, threads = build.tables["processes"], build.tables["threads"]
    for rows in (processes, threads):
        rows[0]["end_ns"] = START_NS + 2 * PERIOD_NS
        rows[1] |= {"start_ns": START_NS, "end_ns": START_NS + 3 * PERIOD_NS}
        rows[2] |= {"start_ns": START_NS + 3 * PERIOD_NS}
        rows[3] |= {"start_ns": START_NS + 4 * PERIOD_NS}
    processes[2]["exec_from_process_id"] = 1
    frames = build.tables["frames"]
    frames.append(frames[0] | {"frame_id": len(frames), "function": "inner", "inlined_in": 0})
    return build


def broken(build: RecordingBuilder, tmp_path: Path) -> list[tuple[str, str]]:
    problems = sberf.open(build.write(tmp_path / "data")).check()
    assert all(str(problem).startswith(problem.table) for problem in problems)
    return [(problem.table, problem.message) for problem in problems]


def test_sound(tmp_path: Path) -> None:
    assert broken(builder(), tmp_path) == []


def test_empty_recording_is_sound(tmp_path: Path) -> None:
    assert broken(RecordingBuilder(), tmp_path) == []


def put(table: str, row: int, **columns: Any) -> Callable[[RecordingBuilder], None]:
    def change(build: RecordingBuilder) -> None:
        build.tables[table][row] |= columns

    return change


CASES = {
    "null": (put("samples", 0, event=None), "samples", "event is never NULL"),
    "kind": (put("modules", 0, kind="gremlin"), "modules", "kind is a known one"),
    "end": (put("stacks", 0, end="boredom"), "stacks", "end is a known one"),
    "empty stack": (
        put("stacks", 0, frame_ids=[]),
        "stacks",
        "a stack has frames unless its end says why not",
    ),
    "blank": (put("frames", 0, function=""), "frames", "a function's name is never empty"),
    "weight": (put("samples", 0, weight=0), "samples", "weight is above 0"),
    "gap": (put("modules", 3, module_id=9), "modules", "module_id is unique and dense from 0"),
    "twice": (put("processes", 2, process_id=1), "processes", "process_id is unique and dense from 0"),
    "parent": (
        put("processes", 0, parent_process_id=77),
        "processes",
        "parent_process_id refers to a row of processes",
    ),
    "process": (put("threads", 0, process_id=77), "threads", "process_id refers to a row of processes"),
    "module": (put("frames", 0, module_id=77), "frames", "module_id refers to a row of modules"),
    "frame": (put("stacks", 0, frame_ids=[0, 77]), "stacks", "frame_ids refer to rows of frames"),
    "thread": (put("samples", 0, thread_id=77), "samples", "thread_id refers to a row of threads"),
    "stack": (put("samples", 0, stack_id=77), "samples", "stack_id refers to a row of stacks"),
    "call": (put("stacks", 0, frame_ids=[6]), "stacks", "frame_ids are addresses, not inlined calls"),
    "inlined": (put("frames", 0, address=1), "frames", "an inlined call has the address that it lies in"),
    "life": (put("processes", 1, start_ns=LAST_NS), "processes", "start_ns is not after end_ns"),
    "outlives": (put("threads", 1, end_ns=None), "threads", "a thread lives inside its process's life"),
    "reuse": (put("processes", 0, end_ns=None), "processes", "lives with the same pid do not overlap"),
    "exec": (put("processes", 2, pid=12), "processes", "exec keeps the PID"),
    "event": (put("samples", 0, event="cycles"), "samples", "event is one of meta.json's sources"),
    "window": (put("samples", 0, ts_ns=START_NS - 1), "samples", "ts_ns lies in meta.json's window"),
    "dead": (put("samples", 0, ts_ns=LAST_NS), "samples", "a sample lies in its thread's life"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_broken(case: tuple[Callable[[RecordingBuilder], None], str, str], tmp_path: Path) -> None:
    change, table, message = case
    build = builder()
    change(build)
    assert (table, message) in broken(build, tmp_path)


def test_duplicate_stack(tmp_path: Path) -> None:
    build = builder()
    build.tables["stacks"].append(build.tables["stacks"][0])
    assert broken(build, tmp_path) == [("stacks", "stack_id is unique")]


def test_disorder(tmp_path: Path) -> None:
    build = builder()
    build.sort = False
    build.tables["samples"].reverse()
    assert ("samples", "samples are ordered by time") in broken(build, tmp_path)


def test_row_counts(tmp_path: Path) -> None:
    path = builder().write(tmp_path / "data")
    meta = json.loads((path / "meta.json").read_text())
    meta["rows"]["samples"] = 6
    (path / "meta.json").write_text(json.dumps(meta))
    assert sberf.open(path).check() == [Problem("samples", "has 5 rows, meta.json says 6")]


def test_damaged_table_is_a_problem(tmp_path: Path) -> None:
    path = builder().write(tmp_path / "data")
    (path / "tables" / "frames.parquet").write_bytes(b"PAR1")
    [problem] = sberf.open(path).check()
    assert "'frames'" in problem.message


def test_str() -> None:
    assert (
        str(Problem("samples", "weight is above 0", 1234))
        == "samples: not so in 1,234 rows: weight is above 0"
    )
    assert str(Problem("meta.json", "has no rows")) == "meta.json: has no rows"
