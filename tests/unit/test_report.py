"""``sberf report``: tables and trees as text and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sberf
from sberf.__main__ import main
from sberf.analysis import call_tree
from sberf.views import text
from sberf.views.call_tree import call_tree_lines
from sberf.views.functions import function_lines
from sberf.views.text import display_width
from tests.unit.synthetic import RecordingBuilder

HOSTILE = [
    "\x1b]0;pwn\x07",
    "<script>alert(1)</script>",
    "a;b",
    "x\u202ey",
    "日本語",
    "\\x41",
    "new\nline",
    "'\"",
]


def build() -> RecordingBuilder:
    builder = RecordingBuilder(99)
    builder.add("postgres", 10, "main;run;libc.so.6!malloc", samples=60)
    builder.add("postgres", 10, "main;run;hash", samples=25)
    builder.add("cat", 20, "main;[kernel]!read", samples=10)
    builder.add("cat", 20, "libx.so!+0x10", samples=4, end="bad_frame_pointer")
    builder.add("cat", 20, "", samples=1, end="kernel_thread")
    return builder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return build().write(tmp_path / "data")


def report(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> tuple[str, str]:
    assert main(["report", "-i", str(path), *arguments]) == 0
    shown = capsys.readouterr()
    return shown.out, shown.err


def report_json(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> Any:
    return json.loads(report(capsys, path, "--json", *arguments)[0])


def rows(out: str) -> list[str]:
    """The lines of a table, with single spaces."""
    return [" ".join(line.split()) for line in out.splitlines() if line and not line.startswith("#")]


def test_table(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = report(capsys, path)
    assert rows(out) == [
        "Self Total Self time Process Module Function",
        "60.00% 60.00% 600.00 ms postgres libc.so.6 malloc",
        "25.00% 25.00% 250.00 ms postgres postgres hash",
        "10.00% 10.00% 100.00 ms cat [kernel] read",
        "4.00% 4.00% 40.00 ms cat libx.so libx.so+0x10",
        "1.00% 1.00% 10.00 ms cat [unknown] [no stack: kernel_thread]",
        "0.00% 85.00% 0 ns postgres postgres main",
        "0.00% 85.00% 0 ns postgres postgres run",
        "0.00% 10.00% 0 ns cat cat main",
    ]
    assert err == ""


def test_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = build()
    builder.meta["losses"] |= {"dropped_records": 1234, "max_sample_rate_after": 50000}
    builder.meta["warnings"] = ["cycles is not available: \x1b[31mcpu-clock"]
    builder.meta["command"] = {"argv": ["false"], "exit_code": 1}
    builder.meta["recovered"] = True
    modules = {module["path"]: module for module in builder.tables["modules"]}
    modules["libx.so"]["symbols"] = "none: stripped"
    out, _ = report(capsys, builder.write(tmp_path / "data"))
    header = [line for line in out.splitlines() if line.startswith("#")]
    assert header[0] == "# sberf record -a"
    assert header[1] == "# 1.00 s on synthetic (Linux 6.18.0, x86_64, 2 CPUs): 2 processes"
    assert "# the command's exit status was 1" in header
    assert any("1,234 samples or stacks were dropped" in line and "--buffer" in line for line in header)
    assert any("from 100,000 to 50,000 Hz" in line for line in header)
    assert r"# warning: cycles is not available: \x1b[31mcpu-clock" in header
    assert "# warning: the capture was killed; sberf recover finished it" in header
    assert "# 1 module lacks symbols: libx.so (stripped)" in header
    assert "# cpu-clock at 99 Hz: 100 samples, 1.00 s of CPU time" in header
    ended = "# 4.00% lies in stacks that ended early and lack callers: bad_frame_pointer 4.00%"
    assert ended in header, "a kernel thread's stack is whole"


def test_sort_keys(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(report(capsys, path, "-s", "pid")[0]) == [
        "Self Total Self time PID",
        "85.00% 85.00% 850.00 ms 10",
        "15.00% 15.00% 150.00 ms 20",
    ]
    assert rows(report(capsys, path, "--sort", "dso,cpu")[0])[0] == "Self Total Self time CPU Module"


def test_tree(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = report(capsys, path, "--tree", "--min-percent", "5")
    assert [line for line in out.splitlines() if line and line[0] != "#"] == [
        "  Total     Self  Function",
        "100.00%    0.00%  all",
        " 85.00%    0.00%  ├─ postgres",
        " 85.00%    0.00%  │  main  [postgres]",
        " 85.00%    0.00%  │  run  [postgres]",
        " 60.00%   60.00%  │  ├─ malloc  [libc.so.6]",
        " 25.00%   25.00%  │  └─ hash  [postgres]",
        " 15.00%    0.00%  └─ cat",
        " 10.00%    0.00%     ├─ main  [cat]",
        " 10.00%   10.00%     │  read  [kernel]",
        "  5.00%              └─ … 2 more",
    ]


def test_tree_groups(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = report(capsys, path, "--tree", "-s", "pid")
    assert "├─ pid 10" in out
    assert "postgres\n" not in out
    merged, _ = report(capsys, path, "--tree", "-s", "sym")
    assert "95.00%    0.00%  ├─ main  [cat]" not in merged
    assert "├─ main  [postgres]" in merged


def test_inverted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = report(capsys, path, "--inverted", "--symbol", "malloc")
    assert [line for line in out.splitlines() if line and line[0] != "#"] == [
        "  Total  Caller",
        "100.00%  all",
        "100.00%  postgres",
        "100.00%  malloc  [libc.so.6]",
        "100.00%  run  [postgres]",
        "100.00%  main  [postgres]",
    ]


def test_filters_and_time(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = report(capsys, path, "--comm", "cat", "--dso", "[kernel]")
    assert "# cpu-clock at 99 Hz: 10 of 100 samples, 100.00 ms of CPU time" in out
    assert rows(out)[1] == "100.00% 100.00% 100.00 ms cat [kernel] read"
    for window, samples in (("0.1,0.2", 10), (",100ms", 10), ("0.95,", 5)):
        assert f"99 Hz: {samples} of 100" in report(capsys, path, "--time", window)[0]


def test_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = report_json(capsys, path, "--limit", "1")
    assert document["overview"]["hostname"] == "synthetic"
    assert document["overview"]["events"][0]["samples"] == 100
    [table] = document["functions"]
    assert (table["event"], table["unit"], table["total_samples"], table["hidden_rows"]) == (
        "cpu-clock",
        "ns",
        100,
        7,
    )
    assert table["rows"] == [
        {
            "container": None,
            "process": "postgres",
            "comm": None,
            "pid": None,
            "tid": None,
            "cpu": None,
            "dso": "libc.so.6",
            "sym": "malloc",
            "line": None,
            "kind": "elf",
            "self_weight": 600_000_000,
            "total_weight": 600_000_000,
            "self_samples": 60,
            "total_samples": 60,
        }
    ]
    [tree] = report_json(capsys, path, "--tree")["call_trees"]
    assert tree["nodes"][0]["name"] == "all"
    assert tree["nodes"][0]["total_samples"] == 100
    assert report_json(capsys, path, "--inverted")["call_trees"][0]["inverted"] is True


def test_several_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = build()
    builder.meta["sources"].append({"event": "page-faults", "unit": "count", "period": 1})
    builder.add("cat", 20, "main;load", samples=3, event="page-faults", weight=2)
    path = builder.write(tmp_path / "data")
    out, _ = report(capsys, path)
    assert "# page-faults with period 1: 3 samples, 6 page-faults" in out
    assert "100.00% 100.00% 6 cat cat load" in rows(out)
    assert [table["event"] for table in report_json(capsys, path)["functions"]] == [
        "cpu-clock",
        "page-faults",
    ]
    only, _ = report(capsys, path, "--event", "page-faults")
    assert "cpu-clock" not in only
    assert main(["report", "-i", str(path), "--event", "cycles"]) == 1
    assert "hint: recorded events: cpu-clock, page-faults" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--pid", "99"], "no sample has PID 99; there are 10, 20"),
        (["--tid", "99"], "no sample has thread ID 99"),
        (["--comm", "postgre"], "no sample has process or thread name 'postgre'; near ones are 'postgres'"),
        (["--dso", "libc"], "no sample has module 'libc'; there are"),
        (["--symbol", "maloc"], "no sample has function 'maloc'; near ones are 'malloc'"),
        (["--cpu", "7"], "no sample has CPU 7; there are 0"),
        (["--time", "5,6"], "no sample lies in that time: the recording lasted 1.00 s"),
        (
            ["--comm", "cat", "--symbol", "malloc"],
            "each filter matches samples, but no sample matches them all",
        ),
    ],
)
@pytest.mark.parametrize("view", [[], ["--tree"]])
def test_empty_result(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], cause: str, view: list[str]
) -> None:
    out, err = report(capsys, path, *view, *arguments)
    assert rows(out) == []
    assert err.startswith(f"sberf: no samples: {cause}")
    document = report_json(capsys, path, *view, *arguments)
    [result] = document["call_trees" if view else "functions"]
    assert result.get("rows", []) == []


def test_empty_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = report(capsys, RecordingBuilder().write(tmp_path / "data"))
    assert "0 samples" in out
    assert "the recording holds no samples" in err


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("view", [[], ["--tree"], ["--json"]])
def test_hostile_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, view: list[str]
) -> None:
    builder = RecordingBuilder()
    builder.module_paths[f"m{name}"] = f"/opt/{name.replace('/', '')}"
    builder.add(f"p{name}", 10, [f"m{name}!f{name}"])
    out, _ = report(capsys, builder.write(tmp_path / "data"), *view)
    assert all(line.isprintable() for line in out.splitlines())
    if view == ["--json"]:
        [row] = json.loads(out)["functions"][0]["rows"]
        assert (row["process"], row["sym"]) == (f"p{name}", f"f{name}")
    else:
        assert text.printable(f"f{name}") in out


@pytest.mark.parametrize("width", [40, 80, 140])
def test_fits_the_terminal(tmp_path: Path, width: int) -> None:
    builder = RecordingBuilder()
    for i in range(60):
        deep = ";".join(
            f"std::vector<very::long::name_{d}>::push_back_{(i >> d) % 2}" for d in range(i % 12 + 1)
        )
        builder.add("a-process-name", 10, deep, samples=1 + i % 5)
    with sberf.open(builder.write(tmp_path / "data")) as recording:
        lines = [*call_tree_lines(call_tree(recording), width)]
        assert max(map(display_width, lines)) <= width
        if width >= 80:
            table = sberf.analysis.functions(recording)
            assert max(map(display_width, function_lines(table, width))) <= width


def test_colours_on_terminals_only(path: Path) -> None:
    with sberf.open(path) as recording:
        tree = call_tree(recording)
        plain = list(call_tree_lines(tree, None))
        painted = list(call_tree_lines(tree, None, text.paint_percent))
    assert not any("\x1b" in line for line in plain)
    assert "\x1b[31m 85.00%\x1b[m" in "".join(painted)
