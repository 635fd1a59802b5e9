"""Event names and modifiers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sberf.capture import events
from sberf.capture.events import Event, parse_events
from sberf.errors import UnsupportedError, UsageError


def parse(text: str, **options: object) -> list[Event]:
    return parse_events(text, **({"frequency_hz": 99, "period": None} | options))  # type: ignore[arg-type]


def test_aliases_get_perfs_main_name() -> None:
    assert [event.event for event in parse("cs,faults,cpu-cycles")] == [
        "context-switches",
        "page-faults",
        "cycles",
    ]


@pytest.mark.parametrize(
    ("name", "user", "kernel"),
    [
        ("cpu-clock", True, True),
        ("cpu-clock:u", True, False),
        ("cpu-clock:k", False, True),
        ("cs:uk", True, True),
    ],
)
def test_modifiers_choose_the_mode(name: str, user: bool, kernel: bool) -> None:
    (event,) = parse(name)
    assert (event.user, event.kernel) == (user, kernel)


def test_only_user_wins_over_modifiers() -> None:
    (event,) = parse("cpu-clock:k", user_only=True)
    assert (event.user, event.kernel) == (False, False)


def test_clocks_count_nanoseconds_and_others_events() -> None:
    assert [event.unit for event in parse("task-clock,page-faults,r003c")] == ["ns", "count", "count"]


def test_a_period_replaces_the_frequency() -> None:
    (event,) = parse("page-faults", period=1)
    assert (event.frequency_hz, event.period) == (None, 1)


def test_cache_events_have_the_kernels_numbers() -> None:
    # perf_event_open(2): cache id | operation id << 8 | result id << 16
    (event,) = parse("LLC-load-misses")
    assert (event.type, event.config) == (3, 2 | 0 << 8 | 1 << 16)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("cpu-clok", "cpu-clock"), ("page-fault", "page-faults"), ("LLC-load-miss", "LLC-load-misses")],
)
def test_an_unknown_event_suggests_the_nearest(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match="unknown event") as caught:
        parse(text)
    assert caught.value.hint == f"did you mean {hint}?"


@pytest.mark.parametrize(
    "text", ["", ",", "cpu-clock,", "cpu-clock:", "cpu-clock:z", "cs:pppp", "cs,context-switches"]
)
def test_malformed_lists_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_too_many_events() -> None:
    with pytest.raises(UsageError, match="too many"):
        parse(",".join(f"r{number:x}" for number in range(9)))


def test_a_clock_period_below_the_timers_limit_is_refused() -> None:
    with pytest.raises(UsageError, match="too short"):
        parse("cpu-clock", period=9_999)
    assert parse("page-faults", period=1)[0].period == 1


def test_pmu_terms_are_placed_by_their_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "cpu"
    (device / "format").mkdir(parents=True)
    (device / "events").mkdir()
    (device / "type").write_text("4\n")
    (device / "format" / "event").write_text("config:0-7,32-35\n")
    (device / "format" / "umask").write_text("config:8-15\n")
    (device / "format" / "ldlat").write_text("config1:0-15\n")
    (device / "events" / "stalls").write_text("event=0x1a3,umask=0x4\n")
    monkeypatch.setattr(events, "_DEVICES", tmp_path)
    (event,) = parse("cpu/stalls/u")
    assert (event.type, event.config, event.kernel) == (4, 0xA3 | 0x4 << 8 | 0x1 << 32, False)
    assert parse("cpu/event=0x3c,umask=1/")[0].config == 0x3C | 1 << 8
    with pytest.raises(UsageError, match="does not fit"):
        parse("cpu/umask=0x100/")
    with pytest.raises(UsageError, match="no field"):
        parse("cpu/nothing=1/")
    with pytest.raises(UnsupportedError):
        parse("cpu/ldlat=1/")
    with pytest.raises(UnsupportedError, match="no PMU"):
        parse("gpu/event=1/")
