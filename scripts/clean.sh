#!/usr/bin/env bash
# Removes what the other scripts made.

source "$(dirname "$0")/lib.sh"

rm -rf .venv build dist native/target flame.html sberf/_native*.so
rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
find sberf tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
