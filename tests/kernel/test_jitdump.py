"""Names of generated code over time, from the jitdumps of the programs that made it."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.kernel.harness import Live, Sample, read_samples, record, record_while_it_runs, share
from tests.kernel.processes import Processes, Started
from tests.kernel.workloads import Workloads

# Of the CPU time: tests/workloads/jitdump.c.
SHARES = {"alpha": 0.2, "beta": 0.4, "gamma": 0.3, "delta": 0.1}

# Generation after generation of a function, each compiled to where an earlier one was.
GENERATIONS = """
const now = () => process.hrtime.bigint();
const lines = [];
let sum = 0;
for (let g = 0; g < 20; g++) {
    let f = new Function(`return function gen_${g}(n) {
        let x = ${g}; for (let i = 0; i < n; i++) x = (x * 31 + i) % 1000003; return x; }`)();
    const start = now();
    for (let i = 0; i < 300; i++) sum += f(100000);
    lines.push(`${g} ${start} ${now()}`);
    f = null;
    gc(); gc();
}
require('fs').writeFileSync('generations', lines.join('\\n'));
process.exitCode = sum > 0 ? 0 : 1;
"""

JAVA = """
public class Hot {
    static int spin(int n) {
        int x = 7;
        for (int i = 0; i < n; i++) x = x * 31 + i;
        return x;
    }
    public static void main(String[] a) {
        long end = System.nanoTime() + 2000000000L;
        int sum = 0;
        while (System.nanoTime() < end) sum += spin(100000);
        System.exit(sum == 1 ? 1 : 0);
    }
}
"""

# That of the loop.
SPIN_LINE = 5


def needs(program: str) -> Path:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return Path(path).resolve()


def leaves(samples: Iterable[Sample]) -> dict[str | None, float]:
    """The share of each name among the frames of generated code that ran."""
    weights: Counter[str | None] = Counter()
    for sample in samples:
        if sample.frames and sample.frames[0].kind in ("jit", "anon"):
            weights[sample.frames[0].function] += sample.weight
    return {name: weight / weights.total() for name, weight in weights.items()}


def record_run(jit: Started, processes: Processes, output: Path) -> list[Sample]:
    recording = record_while_it_runs(jit, processes.add(Live(output, "-a", "-F", "1999")))
    return [sample for sample in read_samples(recording) if sample.comm == "jitdump"]


def check_shares(samples: list[Sample], dump: str) -> None:
    assert leaves(samples) == pytest.approx(SHARES, abs=0.04)
    generated = {frame for sample in samples for frame in sample.frames if frame.kind == "jit"}
    assert {(frame.module, frame.symbols) for frame in generated} == {(dump, "jitdump")}
    in_loop = [s for s in samples if s.end == "entry" and s.frames[0].kind == "jit"]
    assert len(in_loop) > 500
    assert share(in_loop, lambda sample: sample.functions[1:3] == ("run_until", "round_from")) > 0.99


@pytest.mark.parametrize("mode", ["", "delete"])
def test_code_that_is_replaced_and_moved(
    workloads: Workloads, processes: Processes, tmp_path: Path, mode: str
) -> None:
    jit = processes.start(workloads.build("jitdump"), tmp_path, "1000", mode)
    dump = jit.line()
    assert dump == f"{tmp_path}/jit-{jit.pid}.dump"
    check_shares(record_run(jit, processes, tmp_path / "jit.data"), dump)
    assert Path(dump).exists() == (mode == "")


def test_a_process_that_begins_in_the_capture(workloads: Workloads, tmp_path: Path) -> None:
    program = workloads.build("jitdump")
    command = ("sh", "-c", f"echo go | {program} {tmp_path} 1000 delete > /dev/null")
    samples = read_samples(record(tmp_path / "jit.data", "-F", "1999", "--", *command))
    samples = [sample for sample in samples if sample.comm == "jitdump"]
    [pid] = {sample.pid for sample in samples}
    check_shares(samples, f"{tmp_path}/jit-{pid}.dump")


def test_a_dump_in_a_container(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    """Another directory of the same name, and another process ID inside; both are gone at the end."""
    program, inside = workloads.build("jitdump"), tmp_path / "inside"
    inside.mkdir()
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    run = f"mount -t tmpfs tmpfs {inside} && exec {program} {inside} 1000"
    jit = processes.start(*namespaces, "sh", "-c", run)
    assert jit.line() == f"{inside}/jit-1.dump"
    assert list(inside.iterdir()) == []
    output = tmp_path / "container.data"
    check_shares(record_run(jit, processes, output), f"{inside}/jit-1.dump")


def test_a_forked_child_keeps_its_copy(workloads: Workloads, processes: Processes, tmp_path: Path) -> None:
    jit = processes.start(workloads.build("jitdump"), tmp_path, "500", "fork")
    jit.line()
    samples = record_run(jit, processes, tmp_path / "fork.data")
    samples = [sample for sample in samples if "fork_with_alpha" in sample.functions]
    by_process = {
        pid: leaves(sample for sample in samples if sample.pid == pid)
        for pid in {sample.pid for sample in samples}
    }
    assert by_process.pop(jit.pid) == {"beta": 1}
    assert list(by_process.values()) == [{"alpha": 1}]


def test_node_reuses_the_memory_of_its_code(tmp_path: Path) -> None:
    """Each sample has the name of the function that ran at its moment."""
    node = needs("node")
    command = (node, "--perf-prof", "--expose-gc", "-e", GENERATIONS)
    recording = record(tmp_path / "node.data", "-F", "4999", "--", *command, cwd=tmp_path)
    samples = read_samples(recording, "t.tid = p.pid")
    lines = (tmp_path / "generations").read_text().splitlines()
    generations = [(f"gen_{g} ", int(start), int(end)) for g, start, end in map(str.split, lines)]
    assert len(generations) == 20
    for name, start, end in generations:
        ran = [(s.frames[0].function or "-") + " " for s in samples if start <= s.ts_ns <= end and s.frames]
        assert sum(name in function for function in ran) > 0.8 * len(ran)
        assert [function for function in ran if "gen_" in function and name not in function] == []
    reused = recording.rows(
        """SELECT count(*) FROM (SELECT address FROM frames JOIN modules USING (module_id)
           WHERE kind = 'jit' AND function LIKE 'JS:%gen\\_%' ESCAPE '\\' AND symbols = 'jitdump'
           GROUP BY address HAVING count(DISTINCT function) > 2)"""
    )
    assert reused[0][0] > 3, "V8 has not reused the memory"


def test_java_with_an_agent(workloads: Workloads, tmp_path: Path) -> None:
    home = needs("javac").parents[1]
    headers = [f"-I{home}/include", f"-I{home}/include/linux"]
    agent = workloads.build("jvm_agent", "-shared", "-fPIC", *headers, output="libjvm_agent.so")
    (tmp_path / "Hot.java").write_text(JAVA)
    subprocess.run([home / "bin/javac", "Hot.java"], cwd=tmp_path, check=True)
    java = home / "bin/java"
    options = (f"-agentpath:{agent}={tmp_path}", "-XX:+PreserveFramePointer", "-cp", tmp_path)
    recording = record(tmp_path / "java.data", "-F", "999", "--", java, *options, "Hot")
    samples = read_samples(recording)
    generated = leaves(samples)
    # main has spin's loop inlined once it is compiled.
    assert generated.get("Hot.spin", 0) + generated.get("Hot.main", 0) > 0.9, generated
    assert generated.get(None, 0) < 0.01
    named = [s for s in samples if s.frames and s.frames[0].function in ("Hot.spin", "Hot.main")]
    assert {(sample.frames[0].kind, sample.frames[0].symbols) for sample in named} == {("jit", "jitdump")}
    assert len(named) > 500
    assert share(named, lambda sample: sample.end == "entry") > 0.95
    lines = recording.rows(
        """SELECT f.file, f.line, count(*) FROM samples JOIN stacks USING (stack_id)
           JOIN frames f ON f.frame_id = frame_ids[1] WHERE f.function = 'Hot.spin' AND f.line IS NOT NULL
           GROUP BY ALL"""
    )
    in_loop = sum(count for file, line, count in lines if (file, line) == ("Hot.java", SPIN_LINE))
    assert in_loop > 0.95 * sum(count for *_, count in lines) > 100, lines
