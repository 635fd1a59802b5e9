#!/usr/bin/env bash
# Formats the Python and Rust sources, mends what ruff can mend, and writes docs/tables.md anew.

source "$(dirname "$0")/lib.sh"

scripts/packages.sh build
scripts/venv.sh
use_toolchain
.venv/bin/ruff check --fix .
.venv/bin/ruff format .
(cd native && cargo fmt)
PYTHONPATH=. "$VENV_PYTHON" scripts/docs_tables.py >docs/tables.md
