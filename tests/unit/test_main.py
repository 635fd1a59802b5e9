"""The dispatcher: help, versions, and errors as messages."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from types import ModuleType

import pytest

import sberf
from sberf import __main__
from sberf.__main__ import main
from sberf.commands import COMMANDS, _parser
from sberf.errors import RecordingError, TargetError, UsageError

HEAVY = ("duckdb", "_duckdb", "rich", "pyarrow", "numpy", "sberf._native", "shtab")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sberf", *arguments], capture_output=True, text=True, check=False
    )


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["-h"], ["--help"]):
        assert main(arguments) == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        for command in COMMANDS:
            first_words = " ".join(_parser.load(command).HELP.split()[:3])
            assert f"\n    {command} " in shown.out or f"\n    {command}\n" in shown.out
            assert first_words in " ".join(shown.out.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sberf {sberf.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: sberf {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([c, "--help"] for c in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from sberf.__main__ import main; main({arguments!r})"
    code += "; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["reprot"], "unknown command 'reprot'", "did you mean sberf report?"),
        (["zzz"], "unknown command 'zzz'", "commands: record, report"),
        (["--nope"], "unrecognized arguments: --nope", "see sberf --help"),
        (["report", "--nope"], "unrecognized arguments: --nope", "see sberf report --help"),
        (["report", "--min-percent", "x"], "'x' is no percentage from 0 to 100", "see sberf report --help"),
        (
            ["report", "--min-percent", "nan"],
            "'nan' is no percentage from 0 to 100",
            "see sberf report --help",
        ),
        (["report", "--limit", "0"], "'0' is no whole number above 0", ""),
        (["report", "--pid", "1-"], "'1-' is no number", ""),
        (["report", "--cpu", "5-2"], "'5-2' is no range", ""),
        (["report", "--cpu", "0-99999999999"], "'0-99999999999' is no range", ""),
        (["report", "--comm", ","], "a name is missing", ""),
        (["report", "--time", "1"], "'1' is no window", ""),
        (["report", "--time", "3,1"], "'3,1' is an empty window", ""),
        (["report", "--time", "a,b"], "'a' is no duration", ""),
        (["script", "--samples"], "--samples needs --folded", ""),
        (["query"], "no query given", "--schema"),
        (["query", "--schema", "SELECT 1"], "--schema takes no query", ""),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("sberf: error: ")
    assert message in shown.err
    assert hint in shown.err.partition("hint: ")[2]


@pytest.mark.parametrize("command", ["report", "flame", "script"])
def test_no_recording(command: str, tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "-i", f"{tmp_path}/\x1b[31mnothing"]) == 1
    shown = capsys.readouterr()
    assert r"/\x1b[31mnothing'" in shown.err
    assert shown.err.endswith("hint: sberf record writes one\n")


def command_that(monkeypatch: pytest.MonkeyPatch, action: object) -> None:
    """Replace the command ``doctor``."""
    module = ModuleType("fake")

    def run(args: argparse.Namespace) -> int:
        if isinstance(action, BaseException):
            raise action
        assert isinstance(action, int)
        return action

    module.add_arguments = lambda parser: None  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setattr(_parser, "load", lambda command: module)


@pytest.mark.parametrize(
    ("action", "status", "error"),
    [
        (0, 0, ""),
        (42, 42, ""),
        (UsageError("bad", "do good"), 2, "sberf: error: bad\nhint: do good\n"),
        (RecordingError("bad"), 1, "sberf: error: bad\n"),
        (TargetError("no \x1b[31m\u202e", "a\nb"), 1, "sberf: error: no \\x1b[31m\\u202e\nhint: a\nb\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            OSError(28, "No space left on device", "x.csv"),
            1,
            "sberf: error: No space left on device: 'x.csv'\n",
        ),
    ],
)
def test_outcomes(
    action: object,
    status: int,
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_that(monkeypatch, action)
    assert main(["doctor"]) == status
    assert capsys.readouterr().err == error


def test_a_bug_is_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    command_that(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_broken_pipe_is_quiet() -> None:
    """The schema is longer than a pipe whose reader has left takes."""
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [sys.executable, "-m", "sberf", "query", "--schema"]
    done = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == __main__.BROKEN_PIPE


def test_terminals_that_know_ascii_only() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "sberf", "report", "-i", "/ä日"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert r"no recording at '/\xe4\u65e5'" in done.stderr


def test_module_runs() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"sberf {sberf.__version__}\n")
