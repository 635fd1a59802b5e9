"""A gcc build of many short processes: how many user samples of exited processes have a name.

``sberf record -a -F 10000`` while ``make -j2`` generates and compiles C files.  Counted are the samples
in user mode (leaf frame in an ELF file) of processes that had exited before the end of the recording.
Whether a file has symbols is read from the file itself after the build by a parser of this benchmark's
own, in three readings of "the file has a symbol table":

- .symtab: only files that are not stripped (what the build itself made: the generator);
- a symbol there: files with any table, and a sized function symbol of .symtab or .dynsym covers the
  address;
- any table: files with any function symbol.  Here static functions of stripped files count as missing,
  though no table knows them: what can be reached is the second figure.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from harness.elf_symbols import FunctionSymbols, function_symbols
from harness.loads import Build
from harness.recorders import Sberf
from harness.results import Result, Setting

FREQUENCY_HZ = 10_000
LIMIT_PERCENT = 99.5

_LEAVES = """
    SELECT modules.path, frames.address, frames.function IS NOT NULL AS named, count(*) AS samples,
           any_value(modules.symbols) AS symbols
    FROM samples
    JOIN threads USING (thread_id)
    JOIN processes USING (process_id)
    JOIN stacks USING (stack_id)
    JOIN frames ON frames.frame_id = stacks.frame_ids[1]
    JOIN modules USING (module_id)
    WHERE processes.end_ns IS NOT NULL AND modules.kind = 'elf'
    GROUP BY ALL
"""
_OTHERS = """
    SELECT coalesce(modules.kind, 'no stack') AS kind, count(*)
    FROM samples
    JOIN threads USING (thread_id)
    JOIN processes USING (process_id)
    JOIN stacks USING (stack_id)
    LEFT JOIN frames ON frames.frame_id = stacks.frame_ids[1]
    LEFT JOIN modules USING (module_id)
    WHERE processes.end_ns IS NOT NULL
    GROUP BY kind ORDER BY kind
"""


def measure(setting: Setting) -> Iterator[Result]:
    """One result a reading."""
    import sberf

    with setting.directory() as directory, Build(directory, scale=setting.seconds(2, 0.5)) as load:
        with Sberf(directory, FREQUENCY_HZ) as recorder:
            load.run()
        with sberf.open(recorder.output) as recording:
            rows = recording.rows(_LEAVES)
            kinds = ", ".join(f"{kind} {count}" for kind, count in recording.rows(_OTHERS))
        yield from _shares(rows, f"samples of exited processes by leaf: {kinds}")


def _shares(rows: list[tuple[str, int, bool, int, str]], note: str) -> Iterator[Result]:
    symbols = cache(lambda path: function_symbols(Path(path)))
    all_, named, missing = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for path, address, has_name, samples, source in rows:
        for reading in _readings(symbols(path), address):
            all_[reading] += samples
            named[reading] += samples * has_name
            if not has_name and reading != "any table":
                missing[path, source] += samples
    for reading in (".symtab", "a symbol there", "any table"):
        percent = 100 * named[reading] / all_[reading] if all_[reading] else 0.0
        judged = reading != "any table"
        yield Result(
            f"named user samples of exited processes, {reading}", "%", percent,
            target=f">= {LIMIT_PERCENT} %" if judged else "", ok=percent >= LIMIT_PERCENT if judged else None,
            note=f"{named[reading]} of {all_[reading]}; {note}",
        )  # fmt: skip
    for (path, source), samples in missing.most_common(5):
        print(f"without a name: {samples} samples in {path} ({source})", file=sys.stderr)


def _readings(found: FunctionSymbols | None, address: int) -> Iterator[str]:
    if found is None or not found.ranges:
        return
    yield "any table"
    if found.has_symtab:
        yield ".symtab"
    if found.covers(address):
        yield "a symbol there"
