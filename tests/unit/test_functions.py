"""Self and total weights with known answers."""

from __future__ import annotations

from pathlib import Path

import pytest

import sberf
from sberf.analysis import Filters, FunctionTable, functions
from sberf.errors import QueryError, UsageError
from sberf.recording.recording import Recording
from tests.unit.synthetic import PERIOD_NS, RecordingBuilder


@pytest.fixture
def build() -> RecordingBuilder:
    return RecordingBuilder()


def opened(build: RecordingBuilder, tmp_path: Path) -> Recording:
    return sberf.open(build.write(tmp_path / "data"))


def samples(table: FunctionTable, *keys: str) -> dict[object, tuple[int, int]]:
    """The rows' keys -> (self, total) samples; checks that weights agree."""
    found: dict[object, tuple[int, int]] = {}
    for row in table.rows:
        assert row.self_weight == row.self_samples * PERIOD_NS
        assert row.total_weight == row.total_samples * PERIOD_NS
        values = tuple(getattr(row, key) for key in keys or table.by)
        found[values[0] if len(values) == 1 else values] = (row.self_samples, row.total_samples)
    assert len(found) == len(table.rows), "a row stands for one thing"
    return found


def test_self_and_total(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main;work", samples=3)
    build.add("app", 10, "main;work;libc.so.6!malloc", samples=2)
    build.add("app", 10, "main;idle", samples=1)
    table = functions(opened(build, tmp_path), by=["sym"])
    assert samples(table) == {"work": (3, 5), "malloc": (2, 2), "idle": (1, 1), "main": (0, 6)}
    assert [row.sym for row in table.rows] == ["work", "malloc", "idle", "main"]
    assert (table.total_samples, table.total_weight) == (6, 6 * PERIOD_NS)
    assert (table.event, table.unit) == ("cpu-clock", "ns")


def test_recursion_counts_once_in_total(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main;walk;walk;other;walk", samples=4)
    build.add("app", 10, "main;walk;other", samples=1)
    table = functions(opened(build, tmp_path), by=["sym"])
    assert samples(table) == {"walk": (4, 5), "other": (1, 5), "main": (0, 5)}


def test_different_addresses_of_a_function_are_one(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main;work")
    build.tables["frames"].append(build.tables["frames"][0] | {"frame_id": 2, "address": 0x999})
    build.tables["stacks"].append({"stack_id": 5, "frame_ids": [2, 0, 1], "end": "entry"})
    build.tables["samples"].append(build.tables["samples"][0] | {"stack_id": 5})
    assert samples(functions(opened(build, tmp_path), by=["sym"])) == {"work": (2, 2), "main": (0, 2)}


def test_frames_without_a_name(build: RecordingBuilder, tmp_path: Path) -> None:
    build.module_paths["libx.so"] = "/opt/x/libx.so"
    build.add("app", 10, "main;libx.so!+0x1a2b")
    build.add("app", 10, "main;[unknown]!+0x7f00")
    build.add("app", 10, "main;[kernel]!+0xffff")
    table = functions(opened(build, tmp_path), by=["sym", "dso"])
    assert samples(table) == {
        ("libx.so+0x1a2b", "libx.so"): (1, 1),
        ("[unknown]+0x7f00", "[unknown]"): (1, 1),
        ("[kernel]+0xffff", "[kernel]"): (1, 1),
        ("main", "app"): (0, 3),
    }


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("/a/b", "b"),
        ("[vdso]", "[vdso]"),
        ("", "[unknown]"),
        ("/a/", "/a/"),
        ("/tmp/perf-1.map", "perf-1.map"),
    ],
)
def test_module_names(build: RecordingBuilder, tmp_path: Path, path: str, module: str) -> None:
    build.module_paths["m"] = path
    build.add("app", 10, "m!f")
    assert samples(functions(opened(build, tmp_path), by=["dso"])) == {module: (1, 1)}


def test_samples_without_a_stack_say_why(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main", samples=2)
    build.add("app", 10, "", samples=3, end="no_registers")
    build.add("app", 10, "", samples=1, end="from_the_future")
    table = functions(opened(build, tmp_path))
    assert samples(table, "sym") == {
        "[no stack: no_registers]": (3, 3),
        "main": (2, 2),
        "[no stack: unknown]": (1, 1),
    }
    assert [(end.end, end.samples) for end in table.ends] == [
        ("no_registers", 3),
        ("entry", 2),
        ("from_the_future", 1),
    ]


def add_threads(build: RecordingBuilder) -> None:
    build.add("server", 10, "main;accept", samples=1, cpu=0)
    build.add("server", 10, "main;work", samples=2, tid=11, thread_comm="worker", cpu=1)
    build.add("server", 10, "main;work", samples=3, tid=12, thread_comm="worker", cpu=0)
    build.add("server", 20, "main;work", samples=4, cpu=1)
    build.add("client", 30, "main;libc.so.6!send", samples=5, cpu=1)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (["process"], {"server": (10, 10), "client": (5, 5)}),
        (["comm"], {"server": (5, 5), "worker": (5, 5), "client": (5, 5)}),
        (["pid"], {10: (6, 6), 20: (4, 4), 30: (5, 5)}),
        (["tid"], {10: (1, 1), 11: (2, 2), 12: (3, 3), 20: (4, 4), 30: (5, 5)}),
        (["cpu"], {0: (4, 4), 1: (11, 11)}),
        (["dso"], {"server": (10, 10), "libc.so.6": (5, 5), "client": (0, 5)}),
        (["sym"], {"work": (9, 9), "send": (5, 5), "accept": (1, 1), "main": (0, 15)}),
        (["cpu", "pid"], {(0, 10): (4, 4), (1, 10): (2, 2), (1, 20): (4, 4), (1, 30): (5, 5)}),
        (
            ["sym", "comm", "cpu"],
            {
                ("accept", "server", 0): (1, 1),
                ("main", "server", 0): (0, 1),
                ("work", "worker", 1): (2, 2),
                ("main", "worker", 1): (0, 2),
                ("work", "worker", 0): (3, 3),
                ("main", "worker", 0): (0, 3),
                ("work", "server", 1): (4, 4),
                ("main", "server", 1): (0, 4),
                ("send", "client", 1): (5, 5),
                ("main", "client", 1): (0, 5),
            },
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_keys(build: RecordingBuilder, tmp_path: Path, by: list[str], expected: dict[object, object]) -> None:
    add_threads(build)
    assert samples(functions(opened(build, tmp_path), by=by)) == expected


def test_fields_that_were_not_asked_for_are_none(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main")
    [row] = functions(opened(build, tmp_path), by=["pid"]).rows
    assert row[:9] == (None, None, None, 10, None, None, None, None, None)


FILTERS = {
    "pid": (Filters(pids=(10, 20)), {"work": 9, "accept": 1}),
    "tid": (Filters(tids=(11,)), {"work": 2}),
    "comm of thread": (Filters(comms=("worker",)), {"work": 5}),
    "comm of process": (Filters(comms=("server",)), {"work": 9, "accept": 1}),
    "comm glob": (Filters(comms=("cl*",)), {"send": 5}),
    "dso": (Filters(dsos=("libc.so.6",)), {"send": 5}),
    "dso path": (Filters(dsos=("/usr/bin/client",)), {"send": 5}),
    "dso glob": (Filters(dsos=("libc*",)), {"send": 5}),
    "symbol anywhere": (Filters(symbols=("main",)), {"work": 9, "send": 5, "accept": 1}),
    "symbol": (Filters(symbols=("accept", "se?d")), {"send": 5, "accept": 1}),
    "cpu": (Filters(cpus=(0,)), {"work": 3, "accept": 1}),
    "time": (Filters(start_ns=10**12 + PERIOD_NS, stop_ns=10**12 + 3 * PERIOD_NS), {"work": 2}),
    "all": (Filters(pids=(10,), tids=(12, 30), cpus=(0,), symbols=("work",)), {"work": 3}),
    "none": (Filters(pids=(99,)), {}),
}


@pytest.mark.parametrize("case", FILTERS.values(), ids=FILTERS.keys())
def test_filters(build: RecordingBuilder, tmp_path: Path, case: tuple[Filters, dict[str, int]]) -> None:
    filters, expected = case
    add_threads(build)
    table = functions(opened(build, tmp_path), filters, by=["sym"])
    assert {row.sym: row.self_samples for row in table.rows if row.self_samples} == expected
    assert table.total_samples == sum(expected.values())


@pytest.mark.parametrize("name", ["[kernel]", "a'b", 'a"b', "100%", "a_b", "x?y", "\x1b[31m", "<b>", "日本"])
def test_names_with_special_characters_match_themselves(
    build: RecordingBuilder, tmp_path: Path, name: str
) -> None:
    build.add(name, 10, [f"{name}!{name}"])
    build.add("other", 11, ["other"])
    recording = opened(build, tmp_path)
    for filters in Filters(comms=(name,)), Filters(dsos=(name,)), Filters(symbols=(name,)):
        assert functions(recording, filters).total_samples == 1


def add_events(build: RecordingBuilder) -> None:
    build.meta["sources"].append({"event": "page-faults", "unit": "count", "period": 1})
    build.add("app", 10, "main;work", samples=3)
    build.add("app", 10, "main;load", samples=2, event="page-faults", weight=1)


def test_events_do_not_add_up(build: RecordingBuilder, tmp_path: Path) -> None:
    add_events(build)
    recording = opened(build, tmp_path)
    assert samples(functions(recording, by=["sym"])) == {"work": (3, 3), "main": (0, 3)}
    faults = functions(recording, Filters(events=("page-faults",)), by=["sym"])
    assert (faults.unit, faults.total_weight) == ("count", 2)
    with pytest.raises(QueryError, match="cannot be added"):
        functions(recording, Filters(events=("cpu-clock", "page-faults")))
    with pytest.raises(QueryError, match="'cycles' was not recorded") as error:
        functions(recording, Filters(events=("cycles",)))
    assert "page-faults" in (error.value.hint or "")


def test_order_limit_and_min_percent(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main;hot", samples=90)
    build.add("app", 10, "main;warm", samples=9)
    build.add("app", 10, "main;cold", samples=1)
    recording = opened(build, tmp_path)
    by_total = functions(recording, by=["sym"], order="total")
    assert [row.sym for row in by_total.rows] == ["main", "hot", "warm", "cold"]
    limited = functions(recording, by=["sym"], limit=2)
    assert ([row.sym for row in limited.rows], limited.hidden_rows) == (["hot", "warm"], 2)
    heavy = functions(recording, by=["sym"], min_percent=5)
    assert ([row.sym for row in heavy.rows], heavy.hidden_rows) == (["hot", "warm", "main"], 1)
    assert heavy.total_samples == 100


def test_wrong_arguments(build: RecordingBuilder, tmp_path: Path) -> None:
    recording = opened(build, tmp_path)
    with pytest.raises(UsageError, match="unknown sort key 'colour'"):
        functions(recording, by=["colour"])
    with pytest.raises(UsageError, match="no sort key"):
        functions(recording, by=[])
    with pytest.raises(UsageError, match="unknown order"):
        functions(recording, order="size")


def test_empty_recording(build: RecordingBuilder, tmp_path: Path) -> None:
    table = functions(opened(build, tmp_path))
    assert (table.rows, table.total_weight, table.hidden_rows) == ((), 0, 0)


def test_many_stacks_use_all_parts(build: RecordingBuilder, tmp_path: Path) -> None:
    """The stacks are added up in parts; none may be missing or counted twice."""
    for i in range(50):
        build.add("app", 10, f"main;f{i % 7};g{i}", samples=1 + i % 3)
    for number, stack in enumerate(build.tables["stacks"]):
        stack["stack_id"] = 2**64 - 1 - number
    for sample in build.tables["samples"]:
        sample["stack_id"] = 2**64 - 1 - (sample["stack_id"] - 2**63) // 7919
    found = samples(functions(opened(build, tmp_path), by=["sym"]))
    assert found["main"] == (0, sum(1 + i % 3 for i in range(50)))
    assert sum(self_ for self_, _ in found.values()) == found["main"][1]
    assert found["f3"] == (0, sum(1 + i % 3 for i in range(3, 50, 7)))


@pytest.fixture
def inlined(build: RecordingBuilder, tmp_path: Path) -> Recording:
    """work() calls parse(), which calls skip(): the compiler has inlined both at one address."""
    build.add("app", 10, "main;work", samples=3)
    build.add("app", 10, "main;other", samples=1)
    work = next(row for row in build.tables["frames"] if row["function"] == "work")
    work |= {"file": "/src/app.c", "line": 7}
    parse = build.inline("parse", work["frame_id"], file="/src/parse.h", line=20)
    build.inline("skip", parse, file="/src/parse.h", line=33)
    return opened(build, tmp_path)


def test_inlined_calls_are_functions(inlined: Recording) -> None:
    expected = {"skip": (3, 3), "parse": (0, 3), "work": (0, 3), "main": (0, 4), "other": (1, 1)}
    assert samples(functions(inlined, by=["sym"])) == expected
    assert inlined.check() == []


def test_inlined_calls_can_be_folded(inlined: Recording) -> None:
    folded = functions(inlined, Filters(inlines=False), by=["sym"])
    assert samples(folded) == {"work": (3, 3), "main": (0, 4), "other": (1, 1)}


def test_a_filter_finds_inlined_calls(inlined: Recording) -> None:
    assert functions(inlined, Filters(symbols=("parse",))).total_samples == 3
    assert functions(inlined, Filters(symbols=("parse",), inlines=False)).total_samples == 0


def test_source_lines(inlined: Recording) -> None:
    by_line = samples(functions(inlined, by=["sym", "line"]))
    assert by_line["skip", "/src/parse.h:33"] == (3, 3)
    assert by_line["parse", "/src/parse.h:20"] == (0, 3)
    assert by_line["work", "/src/app.c:7"] == (0, 3)
    assert by_line["main", None] == (0, 4)


def test_names_as_the_linker_knows_them(build: RecordingBuilder, tmp_path: Path) -> None:
    build.add("app", 10, "main;work(int)", samples=2)
    build.tables["frames"][0]["symbol"] = "_Z4worki"
    recording = opened(build, tmp_path)
    assert samples(functions(recording, by=["sym"]))["work(int)"] == (2, 2)
    raw = Filters(demangle=False)
    assert samples(functions(recording, raw, by=["sym"])) == {"_Z4worki": (2, 2), "main": (0, 2)}
    assert functions(recording, Filters(symbols=("_Z*",), demangle=False)).total_samples == 2
