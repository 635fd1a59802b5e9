"""``sberf query``: SQL over a recording's tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sberf.commands._options import add_input

if TYPE_CHECKING:
    from sberf.recording.query import QueryResult
    from sberf.recording.recording import Recording

HELP = "run SQL over the recording's tables"
FORMATS = ("table", "csv", "json", "parquet")
_EPILOG = """\
examples:
  sberf query --schema
  sberf query "SELECT comm, count(*) FROM samples JOIN threads USING (thread_id) GROUP BY comm"
  sberf query -o samples.parquet "SELECT * FROM samples"
  sberf query --format csv - < question.sql"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.description = (
        "Run one SELECT, in DuckDB's SQL, over the recording's tables. It cannot change the recording or "
        "reach other files."
    )
    parser.epilog = _EPILOG
    parser.add_argument("sql", metavar="SQL", nargs="?", help="the query; - reads it from stdin")
    add_input(parser)
    parser.add_argument("--schema", action="store_true", help="describe the tables and their columns")
    parser.add_argument("--format", choices=FORMATS, help="default: what the name of -o ends in, else table")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write to FILE instead of stdout")


def run(args: argparse.Namespace) -> int:
    """Print or write the result."""
    from sberf.errors import UsageError
    from sberf.recording.recording import open_recording

    if args.schema:
        return _schema(args)
    if args.sql is None:
        raise UsageError("no query given", 'write sberf query "SELECT ...", or --schema to see the tables')
    if args.output is not None and not args.output.parent.is_dir():
        raise UsageError(f"'{args.output.parent}' is no directory", "create it, or name another -o FILE")
    sql = sys.stdin.read() if args.sql == "-" else args.sql
    form = args.format or _form_of(args.output)
    with open_recording(args.input) as recording:
        if form == "parquet":
            return _write_parquet(recording, sql, args.output)
        if args.output is not None:
            return _write(_lines(recording.query(sql), form, None), args.output)
        return _print(recording.query(sql), form)


def _form_of(output: Path | None) -> str:
    ending = output.suffix[1:].lower() if output is not None else ""
    return ending if ending in FORMATS else "table"


def _schema(args: argparse.Namespace) -> int:
    from sberf.errors import UsageError
    from sberf.recording.schema import TABLES
    from sberf.views.query import schema_lines
    from sberf.views.text import show

    if args.sql is not None or args.output is not None or args.format not in (None, "table", "json"):
        raise UsageError(
            "--schema takes no query and no output", "write sberf query --schema [--format json]"
        )
    if args.format == "json":
        from sberf.views.json import to_json

        print(to_json(TABLES))
    else:
        show(schema_lines(TABLES))
    return 0


def _lines(result: QueryResult, form: str, width: int | None) -> Iterator[str]:
    from sberf.views.query import csv_lines, json_lines, table_lines

    if form == "csv":
        return csv_lines(result.columns, result, safe=width is not None)
    if form == "json":
        return json_lines(result.columns, result)
    return table_lines(result.columns, result, width)


def _print(result: QueryResult, form: str) -> int:
    from sberf.views.text import show, terminal_width

    lines = show(_lines(result, form, terminal_width()))
    if form == "table" and lines <= 1:
        print("sberf: the query has no rows", file=sys.stderr)
    return 0


def _write(lines: Iterator[str], output: Path) -> int:
    """Write beside the file and rename, so that a failure leaves an older file as it was."""
    part = output.with_name(f".{output.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.writelines(line + "\n" for line in lines)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return 0


def _write_parquet(recording: Recording, sql: str, output: Path | None) -> int:
    from sberf.errors import UsageError
    from sberf.recording.query import write_parquet

    if output is None:
        raise UsageError("Parquet cannot be printed", "name a file with -o FILE")
    write_parquet(recording, sql, output)
    return 0
