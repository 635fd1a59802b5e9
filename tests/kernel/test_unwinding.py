"""Complete stacks of programs that were built without frame pointers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sberf.analysis import stack_quality
from tests.kernel.harness import read_samples, record, share
from tests.kernel.test_real_programs import NODE_LOAD, needs
from tests.kernel.workloads import Workloads

PYTHON_LOAD = """
import json
data = {str(n): [n] * 20 for n in range(200)}
for _ in range(3000):
    json.loads(json.dumps(data))
"""
PERL_LOAD = "my %h; for my $i (1..12000000) { $h{$i % 1000} .= 'x' if $i % 7 == 0; }"
SQL_LOAD = (
    "create table t as with recursive c(x) as (select 1 union all select x + 1 from c where x < 2000000) "
    "select count(*), sum(x * x % 7), max(printf('%d', x)) from c;"
)
# Neither the workloads' frame pointers nor anything else that ordinary programs do not have.
ORDINARY = ("-fomit-frame-pointer", "-momit-leaf-frame-pointer", "-foptimize-sibling-calls")


def complete_share(output: Path, *command: str | Path) -> float:
    """Of the samples of a command, those whose stacks reach the thread's entry."""
    recording = record(output, "-F", "2000", "--", *command)
    quality = stack_quality(recording)
    assert quality.total_samples > 200
    return quality.complete_samples / quality.total_samples


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("/usr/bin/python3", ("-c", PYTHON_LOAD)),
        ("perl", ("-e", PERL_LOAD)),
        ("node", ("-e", NODE_LOAD)),
        ("sqlite3", (":memory:", SQL_LOAD)),
    ],
)
def test_programs_of_the_distribution(tmp_path: Path, program: str, arguments: tuple[str, ...]) -> None:
    assert complete_share(tmp_path / "program.data", needs(program), *arguments) >= 0.995


def test_git(tmp_path: Path) -> None:
    """Many objects: a file of its own for each version of a text."""
    repository = tmp_path / "repository"
    script = (
        'git init -q "$0" && cd "$0" && seq 20000 > text && git add text && '
        "for n in $(seq 40); do sed -i s/$n/x$n/ text && "
        "git -c user.name=a -c user.email=b commit -qam $n; done && git log -p --stat > /dev/null"
    )
    assert complete_share(tmp_path / "git.data", "sh", "-c", script, repository) >= 0.98


def test_exceptions(workloads: Workloads, tmp_path: Path) -> None:
    program = workloads.build("exceptions.cpp", *ORDINARY)
    recording = record(tmp_path / "exceptions.data", "-F", "2000", "--", program, "1500")
    quality = stack_quality(recording)
    assert quality.complete_samples >= 0.995 * quality.total_samples
    thrown = [sample for sample in read_samples(recording) if sample.has("_Unwind_RaiseException")]
    assert len(thrown) > 100

    # All of the recursion below the throw, and main below that.
    def depth(functions: tuple[str | None, ...]) -> int:
        return sum((function or "").startswith("descend(") for function in functions)

    assert max(depth(sample.user_functions) for sample in thrown) == 21
    assert share(thrown, lambda sample: sample.has("main")) > 0.99


def test_rust(workloads: Workloads, tmp_path: Path) -> None:
    program = workloads.build("shapes.rs")
    recording = record(tmp_path / "rust.data", "-F", "2000", "--", program)
    quality = stack_quality(recording)
    assert quality.complete_samples >= 0.99 * quality.total_samples


def test_a_signals_handler_stands_on_what_it_interrupted(workloads: Workloads, tmp_path: Path) -> None:
    program = workloads.build("signals", *ORDINARY)
    recording = record(tmp_path / "signals.data", "-F", "2000", "--", program)
    handling = [sample for sample in read_samples(recording) if sample.has("handler")]
    assert len(handling) > 300

    def stands(functions: tuple[str | None, ...]) -> bool:
        at = functions.index("handler")
        return functions[at + 2 : at + 4] == ("interrupted", "main")

    # The first ones, whose table of the vDSO is being made, carry a copy of the handler's stack alone.
    assert share(handling, lambda sample: sample.end == "entry" and stands(sample.user_functions)) > 0.95


def test_a_32_bit_program(workloads: Workloads, tmp_path: Path) -> None:
    if not Path("/usr/lib/gcc").is_dir() or not list(Path("/usr/lib/gcc").glob("*/*/32/crtbegin.o")):
        pytest.skip("gcc cannot build 32-bit programs here")
    program = workloads.build("exceptions.cpp", "-m32", *ORDINARY, output="exceptions32")
    assert complete_share(tmp_path / "32.data", program, "1500") >= 0.99


def test_java_with_frame_pointers(tmp_path: Path) -> None:
    java = needs("java")
    if shutil.which("javac") is None:
        pytest.skip("javac is not installed")
    source = tmp_path / "Load.java"
    source.write_text(
        """
        public class Load {
            static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
            public static void main(String[] a) {
                long end = System.currentTimeMillis() + 2000, sum = 0;
                while (System.currentTimeMillis() < end) sum += fib(20);
                System.exit(sum == 0 ? 1 : 0);
            }
        }"""
    )
    command = (java, "-XX:+PreserveFramePointer", source)
    # A short run, of which the start, with its many files, is a large part.
    assert complete_share(tmp_path / "java.data", *command) >= 0.97


def test_without_tables_the_same_program_has_no_callers(tmp_path: Path) -> None:
    """What the tables are for; and `--call-graph fp` does without them."""
    recording = record(
        tmp_path / "fp.data",
        "-F",
        "2000",
        "--call-graph",
        "fp",
        "--",
        needs("/usr/bin/python3"),
        "-c",
        PYTHON_LOAD,
    )
    quality = stack_quality(recording)
    assert quality.complete_samples < 0.5 * quality.total_samples


def test_a_trampoline_without_a_frame_pointer(workloads: Workloads, tmp_path: Path) -> None:
    program = workloads.build("trampoline", *ORDINARY)
    recording = record(tmp_path / "trampoline.data", "-F", "2000", "--", program)
    working = [sample for sample in read_samples(recording) if sample.has("work")]
    # The first ones, whose tables are being made, carry a copy of the stack, but not of the trampoline.
    working = working[len(working) // 2 :]
    assert len(working) > 300
    expected = ("work", None, "with_other_use_of_rbp", "main")
    assert share(working, lambda sample: sample.user_functions[:4] == expected) > 0.99
    assert share(working, lambda sample: sample.end == "entry") > 0.99
