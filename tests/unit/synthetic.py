"""Small recordings with known answers, written without capturing anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sberf.recording.schema import FORMAT_MAJOR, FORMAT_MINOR, FORMAT_NAME, TABLES, Table

START_NS = 1_000_000_000_000
PERIOD_NS = 10_000_000
_MODULE_KINDS = {"[kernel]": "kernel", "[unknown]": "unknown"}


class RecordingBuilder:
    """Collects samples and writes them as a recording.

    ``add("app", 10, "main;work;libc.so.6!malloc")`` is one sample; frames stand root first as in folded
    text, ``module!function`` or just ``function`` in the process's own executable ``/usr/bin/COMM``, and
    ``module!+0x10`` is a frame without a name at that address.
    """

    def __init__(self, frequency_hz: int = 100) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {table.name: [] for table in TABLES}
        self.meta: dict[str, Any] = _meta(frequency_hz)
        self._keys: dict[Any, int] = {}
        self.module_paths: dict[str, str] = {}
        self.module_kinds: dict[str, str] = dict(_MODULE_KINDS)
        self._next_ts_ns = START_NS
        self.sort = True

    def add(
        self,
        comm: str,
        pid: int,
        stack: str | list[str],
        *,
        samples: int = 1,
        tid: int | None = None,
        thread_comm: str | None = None,
        cpu: int = 0,
        event: str = "cpu-clock",
        weight: int = PERIOD_NS,
        end: str = "entry",
        ts_ns: int | None = None,
    ) -> None:
        """Add ``samples`` equal samples, one period apart; a list of frames may hold any characters."""
        names = stack if isinstance(stack, list) else [n for n in stack.split(";") if n]
        frames = [self.frame(name, f"/usr/bin/{comm}") for name in reversed(names)]
        thread_id = self.thread(comm, pid, pid if tid is None else tid, thread_comm or comm)
        stack_id = self.stack(frames, end)
        for _ in range(samples):
            self.tables["samples"].append(
                {
                    "ts_ns": self._next_ts_ns if ts_ns is None else ts_ns,
                    "cpu": cpu,
                    "thread_id": thread_id,
                    "event": event,
                    "stack_id": stack_id,
                    "weight": weight,
                }
            )
            self._next_ts_ns += PERIOD_NS

    def process(self, comm: str, pid: int, **columns: Any) -> int:
        """The process's key; ``columns`` take effect when it is new."""
        return self._row("processes", "process_id", (comm, pid), {"pid": pid, "comm": comm, **columns})

    def thread(self, comm: str, pid: int, tid: int, thread_comm: str) -> int:
        """The thread's key."""
        process_id = self.process(comm, pid)
        row = {"process_id": process_id, "tid": tid, "comm": thread_comm}
        return self._row("threads", "thread_id", (process_id, tid, thread_comm), row)

    def module(self, path: str) -> int:
        """The module's key."""
        name = path.rsplit("/", 1)[-1]
        kind = self.module_kinds.get(name, "elf")
        row = {"path": self.module_paths.get(name, path), "kind": kind, "symbols": "symtab"}
        return self._row("modules", "module_id", path, row)

    def frame(self, name: str, default_module: str, **columns: Any) -> int:
        """The frame's key, for ``function``, ``module!function`` or ``module!+0xaddress``."""
        module, _, function = name.rpartition("!")
        module_id = self.module(module or default_module)
        row: dict[str, Any] = {"module_id": module_id, "address": 16 * (1 + len(self.tables["frames"]))}
        row["is_return"] = False
        if function.startswith("+0x"):
            row["address"] = int(function[3:], 16)
        else:
            row |= {"function": function, "symbol": function}
        return self._row("frames", "frame_id", (module_id, function), row | columns)

    def inline(self, name: str, inlined_in: int, **columns: Any) -> int:
        """A call of ``name`` that was inlined in a frame; its key."""
        row = self.tables["frames"][inlined_in]
        key = (name, inlined_in)
        place = {"module_id": row["module_id"], "address": row["address"], "is_return": row["is_return"]}
        call = {"function": name, "symbol": name, "inlined_in": inlined_in}
        return self._row("frames", "frame_id", key, place | call | columns)

    def stack(self, frame_ids: list[int], end: str = "entry") -> int:
        """The stack's key, leaf first."""
        key = ("stacks", tuple(frame_ids), end)
        if key not in self._keys:
            self._keys[key] = stack_id = 2**63 + 7919 * len(self.tables["stacks"])
            self.tables["stacks"].append({"stack_id": stack_id, "frame_ids": frame_ids, "end": end})
        return self._keys[key]

    def _row(self, table: str, key_column: str, key: Any, row: dict[str, Any]) -> int:
        if (table, key) not in self._keys:
            self._keys[table, key] = number = len(self.tables[table])
            self.tables[table].append({key_column: number, **row})
        return self._keys[table, key]

    def write(self, path: Path) -> Path:
        """Write the recording to directory ``path``, which must not exist."""
        (path / "tables").mkdir(parents=True)
        samples = self.tables["samples"]
        if self.sort:
            samples = sorted(samples, key=lambda sample: sample["ts_ns"])
        for table in TABLES:
            rows = samples if table is TABLES[-1] else self.tables[table.name]
            write_table(path, table, rows)
        self.meta["rows"] = {name: len(rows) for name, rows in self.tables.items()}
        last = max((sample["ts_ns"] for sample in samples), default=START_NS)
        self.meta["window"] = {"start_ns": START_NS, "end_ns": last + PERIOD_NS} | (self.meta["window"] or {})
        (path / "meta.json").write_text(json.dumps(self.meta), encoding="utf-8")
        return path


def write_table(path: Path, table: Table, rows: list[dict[str, Any]]) -> None:
    """Write one table's rows; columns that a row lacks are NULL."""
    import duckdb

    connection = duckdb.connect(":memory:")
    columns = ", ".join(f'"{c.name}" {c.type}' for c in table.columns)
    connection.execute(f"CREATE TABLE t ({columns})")
    if rows:
        marks = ", ".join("?" * len(table.columns))
        values = [[row.get(c.name) for c in table.columns] for row in rows]
        connection.executemany(f"INSERT INTO t VALUES ({marks})", values)
    file = str(path / "tables" / f"{table.name}.parquet").replace("'", "''")
    connection.execute(f"COPY t TO '{file}' (FORMAT parquet, COMPRESSION zstd)")
    connection.close()


def _meta(frequency_hz: int) -> dict[str, Any]:
    return {
        "format": FORMAT_NAME,
        "version": {"major": FORMAT_MAJOR, "minor": FORMAT_MINOR},
        "sberf_version": "0.1.0",
        "host": {
            "hostname": "synthetic",
            "kernel": "6.18.0",
            "arch": "x86_64",
            "cpus": [0, 1],
            "numa_nodes": {"0": [0, 1]},
        },
        "command_line": ["sberf", "record", "-a"],
        "command": None,
        "clock": {"monotonic_ns": START_NS, "realtime_ns": 1_700_000_000 * 10**9, "boottime_ns": START_NS},
        "window": {},
        "target": {"kind": "all"},
        "sources": [
            {
                "event": "cpu-clock",
                "unit": "ns",
                "frequency_hz": frequency_hz,
                "user": True,
                "kernel": True,
                "max_depth": 127,
            }
        ],
        "losses": {
            "dropped_records": 0,
            "dropped_by_cpu": {},
            "missed_samples": 0,
            "throttled": 0,
            "lost_sideband": 0,
            "unresolved_stacks": 0,
            "max_sample_rate_before": 100_000,
            "max_sample_rate_after": 100_000,
        },
        "warnings": [],
        "recovered": False,
        "rows": {},
    }
