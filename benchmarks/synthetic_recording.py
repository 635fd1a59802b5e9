"""Write a synthetic recording of any size, to measure how fast recordings are read.

    python benchmarks/synthetic_recording.py DIR --samples 50000000 --stacks 100000

Stacks share prefixes as real ones do, a few are hot (the share of the nth falls as a power), and each is
one process's, in all its threads and on all CPUs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import duckdb

from sberf.recording.schema import FORMAT_MAJOR, FORMAT_MINOR, FORMAT_NAME, TABLES

START_NS = 10**12
PERIOD_NS = 100_000
CPUS = 16
THREADS_A_PROCESS = 5
FUNCTIONS_A_MODULE = 150
FUNCTIONS_A_PROCESS = 500
HOT_STEP = 7919  # a prime: the hot stacks lie in different processes


def write(path: Path, samples: int, stacks: int, functions: int, processes: int) -> None:
    (path / "tables").mkdir(parents=True)
    connection = duckdb.connect(":memory:")
    connection.execute("SELECT setseed(0.42)")
    rows = {}
    for table in TABLES:
        columns = ", ".join(f'"{c.name}"::{c.type} AS "{c.name}"' for c in table.columns)
        select = _SELECTS[table.name].format(
            samples=samples,
            stacks=stacks,
            functions=functions,
            processes=processes,
            threads=processes * THREADS_A_PROCESS,
            threads_a_process=THREADS_A_PROCESS,
            modules=functions // FUNCTIONS_A_MODULE + 1,
            functions_a_process=FUNCTIONS_A_PROCESS,
            functions_a_module=FUNCTIONS_A_MODULE,
            cpus=CPUS,
            start_ns=START_NS,
            step_ns=max(1, PERIOD_NS // CPUS),
            period_ns=PERIOD_NS,
            hot_step=HOT_STEP,
        )
        file = path / "tables" / f"{table.name}.parquet"
        copy = f"COPY (SELECT {columns} FROM ({select})) TO '{file}' (FORMAT parquet, COMPRESSION zstd)"
        [(rows[table.name],)] = connection.execute(copy).fetchall()
    (path / "meta.json").write_text(json.dumps(_meta(rows)), encoding="utf-8")


_SELECTS = {
    "processes": """
        SELECT i AS process_id, 1000 + i AS pid, NULL AS ns_pid, NULL AS parent_process_id,
               NULL AS exec_from_process_id, 0 AS uid, 'worker' || i AS comm, NULL AS exe, NULL AS cmdline,
               NULL AS container, NULL AS start_ns, NULL AS end_ns, NULL AS exit_code
        FROM range({processes}) t(i)""",
    "threads": """
        SELECT i AS thread_id, i // {threads_a_process} AS process_id, 100000 + i AS tid,
               'thread' || i AS comm, NULL AS start_ns, NULL AS end_ns
        FROM range({threads}) t(i)""",
    "modules": """
        SELECT i AS module_id,
               CASE WHEN i = 0 THEN '[kernel]' ELSE '/usr/lib/libsynthetic' || i || '.so' END AS path,
               NULL AS build_id, CASE WHEN i = 0 THEN 'kernel' ELSE 'elf' END AS kind, 'symtab' AS symbols
        FROM range({modules}) t(i)""",
    # Four addresses a function, as sampled code has.
    "frames": """
        SELECT i AS frame_id, i // 4 // {functions_a_module} AS module_id, 4096 + 16 * i AS address,
               CASE WHEN i % 97 <> 0 THEN 'synthetic::function_' || i // 4 || '(int, char const*)'
               END AS function,
               function AS symbol, NULL AS file, NULL AS line, NULL AS inlined_in
        FROM range(4 * {functions}) t(i)""",
    "stacks": """
        SELECT hash(i) AS stack_id,
               [4 * ((i * {processes} // {stacks} * {functions} // {processes}
                      + hash(depth, i >> greatest(0, 16 - depth)::INTEGER) % {functions_a_process})
                     % {functions}) + hash(depth, i) % 4
                FOR depth IN range(14 + (hash(i, 'depth') % 21)::BIGINT, -1, -1)] AS frame_ids,
               'entry' AS "end"
        FROM range({stacks}) t(i)""",
    # All threads of a stack's process run it.
    "samples": """
        SELECT {start_ns} + i * {step_ns} AS ts_ns, i % {cpus} AS cpu,
               stack * {processes} // {stacks} * {threads_a_process} + i % {threads_a_process} AS thread_id,
               'cpu-clock' AS event, hash(stack) AS stack_id, {period_ns} AS weight
        FROM (SELECT i, {hot_step} * floor({stacks} * pow(random(), 3))::BIGINT % {stacks} AS stack
              FROM range({samples}) t(i))""",
}


def _meta(rows: dict[str, int]) -> dict[str, object]:
    end_ns = START_NS + rows["samples"] * max(1, PERIOD_NS // CPUS)
    return {
        "format": FORMAT_NAME,
        "version": {"major": FORMAT_MAJOR, "minor": FORMAT_MINOR},
        "sberf_version": "synthetic",
        "host": {"hostname": "synthetic", "kernel": "none", "arch": "x86_64", "cpus": list(range(CPUS))},
        "command_line": ["synthetic_recording.py"],
        "command": None,
        "clock": {"monotonic_ns": START_NS, "realtime_ns": START_NS, "boottime_ns": START_NS},
        "window": {"start_ns": START_NS, "end_ns": end_ns},
        "target": {"kind": "all"},
        "sources": [{"event": "cpu-clock", "unit": "ns", "frequency_hz": 10**9 // PERIOD_NS}],
        "losses": {},
        "warnings": [],
        "recovered": False,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, metavar="DIR")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--stacks", type=int, default=50_000)
    parser.add_argument("--functions", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=200)
    args = parser.parse_args()
    write(args.path, args.samples, args.stacks, args.functions, args.processes)


if __name__ == "__main__":
    main()
