"""What a recording holds, as HTML for notebooks."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sberf.units import format_count, format_duration

if TYPE_CHECKING:
    from sberf.recording.recording import Recording


def summary_html(recording: Recording) -> str:
    """A small table from ``meta.json`` alone; all text is escaped."""
    rows = "".join(
        f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in _facts(recording)
    )
    return f"<table><caption>sberf recording</caption>{rows}</table>"


def _facts(recording: Recording) -> Iterator[tuple[str, str]]:
    meta = recording.meta
    host = meta.get("host") or {}
    yield "path", str(recording.path)
    yield "command line", shlex.join(map(str, meta.get("command_line") or []))
    yield "host", f"{host.get('hostname', 'unknown')}, kernel {host.get('kernel', 'unknown')}"
    yield "duration", format_duration(recording.duration_ns)
    yield "events", ", ".join(str(source["event"]) for source in meta["sources"])
    for table, rows in (meta.get("rows") or {}).items():
        yield str(table), format_count(int(rows))
    losses = {name: value for name, value in recording.losses.items() if isinstance(value, int) and value}
    for name in ("max_sample_rate_before", "max_sample_rate_after"):
        losses.pop(name, None)
    yield "losses", ", ".join(f"{name} {format_count(value)}" for name, value in losses.items()) or "none"
    for warning in meta.get("warnings") or []:
        yield "warning", str(warning)
