#!/usr/bin/env bash
# Builds the native core with the BPF programs in it, and installs sberf into .venv (editable);
# does nothing when neither the sources nor the compilers changed.

source "$(dirname "$0")/lib.sh"
use_toolchain

key=$({
	cat "$STAMPS/venv"
	rustc --version
	"$CLANG" --version
	hash_of native bpf pyproject.toml
} | hash_text)
if is_fresh build "$key" && [ -x .venv/bin/sberf ] && [ -e sberf/_native.abi3.so ]; then exit; fi

forget build
say "building the native core (minutes the first time; $LOGS/build.log)"
logged build .venv/bin/maturin develop --release ||
	die "the native core does not build" "see $LOGS/build.log"
mark_fresh build "$key"
