"""Measure what sberf costs and how fast it is, beside perf, and print one table.

    sudo .venv/bin/python benchmarks/run.py                        all topics (about 45 minutes)
    sudo .venv/bin/python benchmarks/run.py --only slowdown,size
    sudo .venv/bin/python benchmarks/run.py --quick                a smoke test; no figures to publish

Needs root, perf, gcc, make, bpftool and, for one of the loads, PostgreSQL.  Each file in
benchmarks/topics says what it measures and how; sberf and perf take turns in one run, and figures are
medians.  Use a release build on a quiet machine; docs/overhead.md holds the figures.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness.results import Result, Setting, as_json, table

TOPICS = (
    "slowdown", "own_cpu", "bpf_cost", "memory", "size", "finish", "report", "startup", "names", "split",
    "stacks", "agreement", "symbolize",
)  # fmt: skip


def main() -> int:
    args = _arguments()
    if os.geteuid() != 0:
        print("benchmarks: both recorders need root", file=sys.stderr)
        return 1
    results: list[Result] = []
    failed = []
    with tempfile.TemporaryDirectory(prefix="sberf-bench-", dir=args.scratch) as scratch:
        # A benchmark leaves nothing behind; only its first captures find no unwind tables there.
        os.environ["SBERF_CACHE_DIR"] = str(Path(scratch) / "cache")
        setting = Setting(Path(scratch), quick=args.quick, long=args.long)
        for topic in args.only:
            try:
                for result in _measure(topic, setting):
                    results.append(result)
            except Exception as error:  # one topic's failure leaves the others their turn
                print(f"benchmarks: {topic} failed: {error}", file=sys.stderr)
                failed.append(topic)
    print(table(results))
    if args.json:
        args.json.write_text(as_json(results, _about(args)))
    return 1 if failed or any(result.ok is False for result in results) else 0


def _measure(topic: str, setting: Setting) -> Iterator[Result]:
    started = time.monotonic()
    print(f"benchmarks: {topic} (load average {os.getloadavg()[0]:.1f})", file=sys.stderr)
    for result in importlib.import_module(f"topics.{topic}").measure(setting):
        print(table([result]).splitlines()[-1], file=sys.stderr)
        yield result
    print(f"benchmarks: {topic} took {time.monotonic() - started:.0f} s", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", metavar="TOPIC,...", type=_topics, default=list(TOPICS), help=f"of {', '.join(TOPICS)}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, shorter recordings, smaller data")
    parser.add_argument(
        "--long", action="store_true", help="memory after 1 and 10 minutes, not 20 s and 2 minutes"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there too")
    parser.add_argument(
        "--scratch", metavar="DIR", help="where temporary files go (default: the system's place)"
    )
    return parser.parse_args()


def _topics(text: str) -> list[str]:
    topics = text.split(",")
    for topic in topics:
        if topic not in TOPICS:
            raise argparse.ArgumentTypeError(f"no topic '{topic}'; there are {', '.join(TOPICS)}")
    return topics


def _about(args: argparse.Namespace) -> dict[str, object]:
    perf = subprocess.run(["perf", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "perf": perf,
        "quick": args.quick,
        "realtime_s": round(time.time()),
    }


if __name__ == "__main__":
    sys.exit(main())
