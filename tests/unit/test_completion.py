"""The completion scripts, read by the shells that they are for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sberf.__main__ import main
from sberf.commands import COMMANDS

# Does what readline does when TAB is pressed at the end of the words.
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
"$(complete -p sberf | sed 's/.*-F \\([^ ]*\\).*/\\1/')" sberf "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _script(shell: str, path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", shell]) == 0
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


def _complete(script: Path, *words: str) -> set[str]:
    command = ["bash", "--norc", "-c", BASH, "bash", str(script), *words]
    result = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    return set(result.stdout.split())


def test_shells_read_it(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = _script(shell, tmp_path / "_sberf", capsys)
    setup, check, options = {
        "bash": ("", "complete -p sberf", ["--norc"]),
        "zsh": ("autoload -Uz compinit; compinit -u -D", "[[ $_comps[sberf] = _shtab_sberf ]]", ["-f"]),
    }[shell]
    program = f'{setup}\neval "$(cat "$1")"\n{check}'
    command = [shell, *options, "-c", program, shell, str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_zsh_finds_it_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _script("zsh", tmp_path / "_sberf", capsys)
    program = "fpath=($1 $fpath); autoload -Uz compinit; compinit -u -D; [[ $_comps[sberf] = _sberf ]]"
    subprocess.run(["zsh", "-f", "-c", program, "zsh", str(tmp_path)], check=True)


def test_bash_completes_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = _script("bash", tmp_path / "sberf", capsys)
    assert set(COMMANDS) <= _complete(script, "sberf", "")
    assert _complete(script, "sberf", "rec") == {"record", "recover"}


def test_bash_completes_options_and_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = _script("bash", tmp_path / "sberf", capsys)
    assert _complete(script, "sberf", "record", "--dur") == {"--duration"}
    assert _complete(script, "sberf", "completion", "") >= {"bash", "zsh"}


def test_bash_completes_directories_only_where_one_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = _script("bash", tmp_path / "sberf", capsys)
    (tmp_path / "other.data").mkdir()
    assert _complete(script, "sberf", "report", "--input", "") == {"other.data"}
