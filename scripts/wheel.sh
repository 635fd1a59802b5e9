#!/usr/bin/env bash
# Builds the one self-contained wheel into dist/.

source "$(dirname "$0")/lib.sh"

scripts/setup.sh
use_toolchain

key=$({
	cat "$STAMPS/build"
	hash_of sberf pyproject.toml README.md LICENSE NOTICE
} | hash_text)
if ! is_fresh wheel "$key" || ! ls dist/sberf-*.whl >/dev/null 2>&1; then
	forget wheel
	rm -f dist/sberf-*.whl
	say "building the wheel"
	# maturin tags it with the oldest glibc whose symbols it needs, and refuses foreign libraries.
	logged wheel .venv/bin/maturin build --release --out dist || die "the wheel does not build" "see $LOGS/wheel.log"
	mark_fresh wheel "$key"
fi
say "the wheel: $(ls dist/sberf-*.whl)"
