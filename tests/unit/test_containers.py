"""Containers in the views and the filters, and which one a user means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sberf
from sberf.__main__ import main
from sberf.analysis import Filters, call_tree, functions, stack_counts
from sberf.analysis.emptiness import why_empty
from sberf.analysis.flame import flame_graph
from sberf.analysis.stack_quality import stack_quality
from sberf.capture.containers import Container, choose_container
from sberf.errors import TargetError
from sberf.recording.recording import Recording
from tests.unit.synthetic import RecordingBuilder

WEB, DB, LXC = "1a2b3c" * 10 + "1a2b", "1a2bff" * 10 + "1a2b", "builder"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """nginx on the host, in a container with a name and in one without, and a shell in a third."""
    build = RecordingBuilder()
    build.process("nginx", 10)
    build.process("nginx", 20, container=WEB, container_name="web")
    build.process("nginx", 30, container=DB)
    build.process("sh", 40, container=LXC, container_name=LXC)
    for pid, comm, samples in ((10, "nginx", 1), (20, "nginx", 2), (30, "nginx", 4), (40, "sh", 8)):
        build.add(comm, pid, "main;work", samples=samples, thread_comm="worker")
    return build.write(tmp_path / "data")


@pytest.fixture
def recording(path: Path) -> Recording:
    return sberf.open(path)


def by(recording: Recording, *keys: str, filters: Filters | None = None) -> dict[object, int]:
    table = functions(recording, filters or Filters(), by=keys)
    return {tuple(getattr(row, key) for key in keys): row.total_samples for row in table.rows}


def test_a_process_is_named_with_its_container(recording: Recording) -> None:
    processes = {"nginx": 1, "web:nginx": 2, f"{DB[:12]}:nginx": 4, f"{LXC}:sh": 8}
    assert by(recording, "process") == {(process,): samples for process, samples in processes.items()}
    assert by(recording, "comm") == {("worker",): 15}
    tree = call_tree(recording, by=["process"])
    assert {node.name: node.total_samples for node in tree.nodes if node.module == "process"} == processes
    quality = stack_quality(recording)
    assert {row.process: row.samples for row in quality.rows} == processes
    counts = stack_counts(recording, by_process=True)
    assert {(stack.comm, stack.pid) for stack in counts.stacks} >= {("web:nginx", 20), ("nginx", 10)}


def test_beside_its_container_a_process_has_its_own_name(recording: Recording) -> None:
    assert by(recording, "container", "process") == {
        ("[host]", "nginx"): 1,
        ("web", "nginx"): 2,
        (DB[:12], "nginx"): 4,
        (LXC, "sh"): 8,
    }
    assert by(recording, "container") == {("[host]",): 1, ("web",): 2, (DB[:12],): 4, (LXC,): 8}


@pytest.mark.parametrize(
    ("wanted", "samples"),
    [
        (("web",), 2),
        ((WEB,), 2),
        ((DB[:12],), 4),
        (("1a2b*",), 6),
        (("[host]",), 1),
        (("web", LXC), 10),
        (("nginx",), 0),
    ],
)
def test_filter(recording: Recording, wanted: tuple[str, ...], samples: int) -> None:
    assert functions(recording, Filters(containers=wanted)).total_samples == samples


def test_the_filter_of_names_takes_plain_ones(recording: Recording) -> None:
    assert functions(recording, Filters(comms=("nginx",))).total_samples == 7
    assert functions(recording, Filters(comms=("nginx",), containers=("web",))).total_samples == 2


def test_a_filter_that_keeps_nothing_says_what_there_is(recording: Recording) -> None:
    assert why_empty(recording, Filters(containers=("bilder",))) == (
        "no sample has container 'bilder'; near ones are 'builder'"
    )


def test_flame_graph_by_container(recording: Recording) -> None:
    trie = flame_graph(recording, by="container").trie
    below_root = {trie.frames[trie.frame[node]].name for node in range(len(trie)) if trie.depth[node] == 1}
    assert below_root == {"[host]", "web", DB[:12], LXC}
    second = {trie.frames[trie.frame[node]].name for node in range(len(trie)) if trie.depth[node] == 2}
    assert second == {"worker"}


def test_on_the_command_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "-i", str(path), "-s", "container,process", "--container", "web", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["functions"][0]["rows"]
    assert (row["container"], row["process"], row["self_samples"]) == ("web", "nginx", 2)
    assert main(["report", "-i", str(path), "-s", "container"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if "Self time" in line).split()[-1] == "Container"
    assert main(["script", "-i", str(path), "--folded", "--samples", "--container", LXC]) == 0
    assert capsys.readouterr().out == "worker;main;work 8\n"
    assert main(["flame", "-i", str(path), "--by", "container", "--json"]) == 0
    assert {"web", "[host]"} <= {frame["name"] for frame in json.loads(capsys.readouterr().out)["frames"]}


def test_a_hostile_name_is_shown_as_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = RecordingBuilder()
    build.process("app", 10, container=WEB, container_name="\x1b[31m<b>\n")
    build.add("app", 10, "main")
    path = build.write(tmp_path / "data")
    assert main(["report", "-i", str(path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[31m<b>" in out


def test_a_recording_from_before_containers_had_names(path: Path) -> None:
    """Minor version 0: the column is not there."""
    import duckdb

    file = path / "tables" / "processes.parquet"
    older = f"SELECT * EXCLUDE container_name FROM '{file}'"
    duckdb.sql(f"COPY ({older}) TO '{file}.old' (FORMAT parquet)")
    Path(f"{file}.old").rename(file)
    assert by(sberf.open(path), "container")[(WEB[:12],)] == 2


def container(identity: str, name: str | None = None) -> Container:
    return Container(identity, name, (Path("/sys/fs/cgroup") / identity,))


RUNNING = [container(WEB, "web"), container(DB), container(LXC, LXC), container("web-2", "web-2")]


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("web", WEB),
        (WEB, WEB),
        (DB, DB),
        ("1a2bff", DB),
        ("build", LXC),
        ("web-2", "web-2"),
        ("web-", "web-2"),
    ],
)
def test_which_container_is_meant(text: str, identity: str) -> None:
    assert choose_container(text, RUNNING).id == identity


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("1a2b", f"'1a2b' could be web ({WEB[:12]}) or {DB[:12]}", "give more of the ID"),
        ("1a2", "no container '1a2' is running", "running are web ("),
        ("wep", "no container 'wep' is running", "near ones are web ("),
        ("bulider", "no container 'bulider' is running", "near ones are builder"),
        ("xyz", "no container 'xyz' is running", f", {DB[:12]}, builder, web-2"),
    ],
)
def test_an_unclear_choice(text: str, message: str, hint: str) -> None:
    with pytest.raises(TargetError) as caught:
        choose_container(text, RUNNING)
    assert caught.value.message == message
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_no_container_runs() -> None:
    with pytest.raises(TargetError, match="no container 'web': none is running"):
        choose_container("web", [])


def test_two_containers_of_the_same_name() -> None:
    with pytest.raises(TargetError, match=r"'web' could be web \(1a2b3c1a2b3c\) or web \(1a2bff1a2bff\)"):
        choose_container("web", [container(WEB, "web"), container(DB, "web")])
