#!/usr/bin/env bash
# Formats the Python and Rust sources, and mends what ruff can mend.

source "$(dirname "$0")/lib.sh"

scripts/packages.sh build
scripts/venv.sh
use_toolchain
.venv/bin/ruff check --fix .
.venv/bin/ruff format .
(cd native && cargo fmt)
