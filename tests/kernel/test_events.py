"""Events other than clocks, several at once, modes and modifiers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sberf.recording.recording import Recording
from tests.kernel.harness import Sample, is_kernel, read_samples, record, run_sberf, share
from tests.kernel.workloads import Workloads

PAGES = 3000
SWITCHES = 150


def weight(samples: list[Sample], event: str, function: str) -> int:
    """What the event counted in ``function``."""
    return sum(sample.weight for sample in samples if sample.event == event and sample.has(function))


def test_each_page_fault_once(workloads: Workloads, tmp_path: Path) -> None:
    pages = workloads.build("pages")
    recording = record(tmp_path / "f.data", "-e", "page-faults", "-c", "1", "--", pages, str(PAGES))
    samples = read_samples(recording)
    assert weight(samples, "page-faults", "touch_pages") == PAGES
    assert {sample.weight for sample in samples} == {1}
    assert {s.functions for s in samples if s.has("touch_pages")} == {("touch_pages", "main", "_start")}
    [source] = recording.meta["sources"]
    assert (source["event"], source["unit"], source["period"]) == ("page-faults", "count", 1)


@pytest.mark.parametrize("alias", ["faults", "minor-faults"])
def test_a_sample_each_so_many_faults(workloads: Workloads, tmp_path: Path, alias: str) -> None:
    pages = workloads.build("pages")
    recording = record(tmp_path / "p.data", "-e", alias, "-c", "10", "--", pages, str(PAGES))
    event = {"faults": "page-faults"}.get(alias, alias)
    assert weight(read_samples(recording), event, "touch_pages") == pytest.approx(PAGES, abs=10)


def test_context_switches(workloads: Workloads, tmp_path: Path) -> None:
    switches = workloads.build("switches")
    recording = record(tmp_path / "s.data", "-e", "cs", "-c", "1", "--", switches, str(SWITCHES))
    samples = read_samples(recording)
    assert weight(samples, "context-switches", "sleep_once") >= SWITCHES
    sleeping = [sample for sample in samples if sample.has("sleep_once")]
    assert share(sleeping, lambda sample: not sample.in_user_mode and sample.has("schedule")) > 0.95
    assert {sample.user_functions for sample in sleeping} == {("sleep_once", "main", "_start")}


def test_several_events_at_once(workloads: Workloads, tmp_path: Path) -> None:
    """A period holds for all; each sample says of which event it is."""
    pages = workloads.build("pages")
    events = "task-clock,page-faults,context-switches,cpu-migrations"
    recording = record(tmp_path / "m.data", "-e", events, "-c", "50000", "--", pages, "200000")
    samples = read_samples(recording)
    assert [source["event"] for source in recording.meta["sources"]] == events.split(",")
    assert weight(samples, "page-faults", "touch_pages") == pytest.approx(200_000, abs=50_000)
    clock = [sample for sample in samples if sample.event == "task-clock"]
    assert {sample.weight for sample in clock} == {50_000}
    assert share(clock, lambda sample: sample.has("touch_pages")) > 0.5


def test_eight_events_are_the_most(tmp_path: Path) -> None:
    events = ["cpu-clock", "task-clock", "page-faults", "cs", "migrations", "minor-faults", "major-faults"]
    recording = record(
        tmp_path / "8.data", "-e", ",".join([*events, "alignment-faults"]), "-a", "-d", "0.3"
    )  # fmt: skip
    assert len(recording.meta["sources"]) == 8
    run = run_sberf("record", "-e", ",".join([*events, "cpu-clock:u", "cpu-clock:k"]), "-a", "-d", "0.1")
    assert run.status == 2
    assert "at most 8" in run.err


@pytest.fixture(scope="module")
def modes(workloads: Workloads, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Both modes, told apart by modifiers."""
    output = tmp_path_factory.mktemp("modes") / "uk.data"
    events = "cpu-clock:u,cpu-clock:k,cpu-clock"
    return record(output, "-e", events, "-F", "2000", "--", workloads.build("modes"), "600")


def test_modifiers_choose_the_mode(modes: Recording) -> None:
    samples = read_samples(modes)
    by_event = {
        event: [sample for sample in samples if sample.event == event]
        for event in ("cpu-clock:u", "cpu-clock:k", "cpu-clock")
    }
    assert all(sample.in_user_mode for sample in by_event["cpu-clock:u"])
    assert not any(sample.in_user_mode for sample in by_event["cpu-clock:k"])
    user, kernel, both = (sum(s.weight for s in own) for own in by_event.values())
    # The program spends as much time in one mode as in the other.
    assert user == pytest.approx(300e6, rel=0.1)
    assert kernel == pytest.approx(300e6, rel=0.1)
    assert both == pytest.approx(user + kernel, rel=0.05)


def test_kernel_samples_know_their_user_callers(modes: Recording) -> None:
    reading = [s for s in read_samples(modes) if s.event == "cpu-clock" and s.has("vfs_read")]
    assert len(reading) > 200
    assert share(reading, lambda sample: sample.has("main")) > 0.95


def test_only_user_mode(workloads: Workloads, tmp_path: Path) -> None:
    recording = record(tmp_path / "u.data", "--user", "-F", "2000", "--", workloads.build("modes"), "300")
    samples = read_samples(recording)
    assert sum(sample.weight for sample in samples) == pytest.approx(150e6, rel=0.15)
    assert not any(is_kernel(frame) for sample in samples for frame in sample.frames)


def test_only_kernel_mode(workloads: Workloads, tmp_path: Path) -> None:
    recording = record(tmp_path / "k.data", "--kernel", "-F", "2000", "--", workloads.build("modes"), "300")
    samples = read_samples(recording)
    assert sum(sample.weight for sample in samples) == pytest.approx(150e6, rel=0.15)
    assert all(is_kernel(frame) for sample in samples for frame in sample.frames)


def test_cycles_falls_back_to_the_clock_or_counts(workloads: Workloads, tmp_path: Path) -> None:
    output = tmp_path / "c.data"
    run = run_sberf(
        "record", "-e", "cycles", "-F", "999", "-o", output, "--", workloads.build("split"), "200"
    )
    assert run.status == 0
    event = "cpu-clock" if "no cycles counter; taking cpu-clock instead" in run.err else "cycles"
    shown = run_sberf("query", "-i", output, "SELECT DISTINCT event FROM samples", "--format", "csv")
    assert shown.out.split() == ["event", event]
