"""One module a subcommand: ``HELP``, ``add_arguments(parser)`` and ``run(args) -> exit status``.

They glue and compute nothing.  Nothing heavy (DuckDB, the Rust core) is imported when they are.
"""

from __future__ import annotations

COMMANDS = ("record", "report", "flame", "script", "query", "doctor", "recover", "symbolize", "completion")
