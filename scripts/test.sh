#!/usr/bin/env bash
# Every check and test, cheap ones first; stops at the first that fails.

source "$(dirname "$0")/lib.sh"

# step WORDS COMMAND...: say what is checked, do it, say how long it took.
step() {
	local name=$1 start=$SECONDS
	shift
	say "$name"
	"$@" || die "failed: $name"
	STEPS+="$(printf '%4d s  %s' $((SECONDS - start)) "$name")"$'\n'
}
STEPS=

in_venv() { PATH="$PWD/.venv/bin:$PATH" "$@"; }
in_native() { (cd native && cargo "$@"); }
pytest() { "$VENV_PYTHON" -m pytest -q "$@"; }

# Tests that load BPF programs need root; what root writes must not stay in the way of the user.
pytest_as_root() {
	as_root env CI="${CI:-}" SBERF_NO_SKIP="${SBERF_NO_SKIP:-}" PYTHONDONTWRITEBYTECODE=1 HOME="$HOME" PATH="$PATH" \
		"$VENV_PYTHON" -m pytest -q -p no:cacheprovider "$@"
}

scripts/packages.sh build test
scripts/venv.sh
use_toolchain

step "ruff: rules" in_venv ruff check .
step "ruff: format" in_venv ruff format --check .
step "mypy --strict" in_venv mypy
step "import rules" in_venv lint-imports
step "cargo fmt" in_native fmt --check
step "build" scripts/build.sh
# Before cargo test, which builds PyO3 in another way: the wheel takes what the build made.
step "wheel" scripts/wheel.sh
step "stub of the native core" in_venv python -m mypy.stubtest sberf._native
step "tests/unit" pytest tests/unit
step "cargo clippy" in_native clippy --release --all-targets --quiet -- -D warnings
step "cargo test" in_native test --release --quiet
step "tests/kernel" pytest_as_root tests/kernel
step "tests/web" pytest tests/web
step "tests/wheel" pytest_as_root tests/wheel

say "all passed"
printf '%s' "$STEPS"
