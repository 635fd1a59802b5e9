"""``sberf script``: what stackcollapse-perf.pl and speedscope make of it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from sberf.__main__ import main
from tests.unit.synthetic import PERIOD_NS, RecordingBuilder


def script(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> str:
    assert main(["script", "-i", str(path), *arguments]) == 0
    return capsys.readouterr().out


def stackcollapse_perf(text: str) -> Counter[str]:
    """The regular expressions of stackcollapse-perf.pl with its default options, without its tidying."""
    stacks: Counter[str] = Counter()
    name, period, stack = "", 1, []
    for line in text.splitlines():
        if not line:
            stacks[";".join([name, *stack])] += period
            name, stack = "", []
        elif start := re.match(r"(\S.+?)\s+(\d+)/*(\d+)*\s+", line):
            event = re.search(r":\s*(\d+)*\s+(\S+):\s*$", line)
            assert event
            name, period = start[1].replace(" ", "_"), int(event[1])
        else:
            frame = re.match(r"\s*(\w+)\s*(.+) \((.*)\)", line)
            assert frame
            assert name
            stack.insert(0, re.sub(r"\+0x[\da-f]+$", "", frame[2]).replace(";", ":"))
    assert not name, "each sample ends with a blank line"
    return stacks


def speedscope(text: str) -> Counter[str]:
    """The regular expressions of speedscope's import/linux-tools.ts."""
    stacks: Counter[str] = Counter()
    for event in text.strip("\n").split("\n\n"):
        first, *lines = event.split("\n")
        assert re.match(r"(\S.+?)\s+(\d+)(?:/?(\d+))?\s+", first)
        assert re.search(r"\s+(\d+\.\d+):\s+", first)
        assert re.search(r"(\S+):\s*$", first)
        frames = [re.match(r"\s*(\w+)\s*(.+) \((\S*)\)$", line) for line in lines]
        stacks[";".join(re.sub(r"\+0x[\da-f]+$", "", f[2]) if f else "?" for f in reversed(frames))] += 1
    return stacks


def build() -> RecordingBuilder:
    builder = RecordingBuilder()
    builder.module_paths["tool"] = "/opt/my tools/tool (deleted)"
    builder.add("app", 10, "main;work;libc.so.6!malloc", samples=3)
    builder.add("app", 10, "main;work", samples=2, tid=11, thread_comm="V8 Worker", cpu=1)
    builder.add("tool", 20, "tool!operator()(int);tool!+0x10", samples=4)
    builder.add("idle one", 30, "", samples=5, end="not_asked")
    return builder


def test_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(capsys, build().write(tmp_path / "data"), "--pid", "10", "--time", "0.02,0.04")
    assert text.splitlines() == [
        "app      10/10      [000]  1000.020000:   10000000 cpu-clock: ",
        "\t              10 malloc (libc.so.6)",
        "\t              20 work (/usr/bin/app)",
        "\t              30 main (/usr/bin/app)",
        "",
        "V8 Worker      10/11      [001]  1000.030000:   10000000 cpu-clock: ",
        "\t              20 work (/usr/bin/app)",
        "\t              30 main (/usr/bin/app)",
        "",
    ]


def test_readers_get_every_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(capsys, build().write(tmp_path / "data"))
    expected = {
        "app;main;work;malloc": 3,
        "V8_Worker;main;work": 2,
        "tool;operator()(int);tool (deleted)": 4,
        "idle_one;[no stack: not_asked]": 5,
    }
    assert stackcollapse_perf(text) == {stack: PERIOD_NS * samples for stack, samples in expected.items()}
    assert speedscope(text) == {stack.split(";", 1)[1]: samples for stack, samples in expected.items()}


def test_folded_is_what_stackcollapse_perf_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = build()
    builder.tables["frames"] = [f | {"function": f.get("function") or "f"} for f in builder.tables["frames"]]
    path = builder.write(tmp_path / "data")
    lines = script(capsys, path, "--folded").splitlines()
    assert lines == sorted(f"{k} {v}" for k, v in stackcollapse_perf(script(capsys, path)).items())


def test_folded_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script(capsys, build().write(tmp_path / "data"), "--folded", "--samples").splitlines() == [
        "V8_Worker;main;work 2",
        "app;main;work;malloc 3",
        "idle_one;[no stack: not_asked] 5",
        "tool;operator()(int);tool (deleted)+0x10 4",
    ]


def test_all_events_unless_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = build()
    builder.meta["sources"].append({"event": "page-faults", "unit": "count", "period": 1})
    builder.add("app", 10, "main;load", event="page-faults", weight=1)
    path = builder.write(tmp_path / "data")
    text = script(capsys, path)
    assert text.count(" cpu-clock: \n") == 14
    assert text.count(" page-faults: \n") == 1
    assert script(capsys, path, "--event", "page-faults").count("\n\n") == 1
    assert script(capsys, path, "--folded", "--event", "page-faults") == "app;main;load 1\n"


def test_inlined_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = RecordingBuilder()
    outer = builder.frame("outer", "/usr/bin/app")
    inner = builder.frame("inner", "/usr/bin/app", inlined_in=outer)
    builder.add("app", 10, "x")
    builder.tables["samples"][0]["stack_id"] = builder.stack([inner, outer])
    text = script(capsys, builder.write(tmp_path / "data"))
    assert "inner (inlined)\n" in text
    assert "outer (/usr/bin/app)\n" in text


@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[31m", "new\n\nsample 1/1 [000] 1.0: 1 x:", "semi;colon", " ", ""]
)
def test_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    builder = RecordingBuilder()
    builder.module_paths["m"] = f"/opt/{name}x"
    builder.add("app", 10, [f"m!f{name}", "m!g"], thread_comm=name)
    path = builder.write(tmp_path / "data")
    text = script(capsys, path)
    assert sum(stackcollapse_perf(text).values()) == PERIOD_NS
    assert sum(speedscope(text).values()) == 1
    [line] = script(capsys, path, "--folded").splitlines()
    assert line.isprintable()
    assert line.rpartition(" ")[0].count(";") == 2


def test_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = build().write(tmp_path / "data")
    for options in [], ["--folded"]:
        assert main(["script", "-i", str(path), "--pid", "7", *options]) == 0
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("sberf: no samples: no sample has PID 7")
