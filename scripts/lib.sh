# shellcheck shell=bash
# Shared by the scripts beside it: source "$(dirname "$0")/lib.sh".
# It goes to the project's root, and knows how to say, fail, become root, and skip what is done.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STAMPS=build/stamps
LOGS=build/log
VENV_PYTHON=.venv/bin/python
mkdir -p "$STAMPS" "$LOGS"

# say WORDS...: one short line on what happens now.
say() { printf '\033[1m==>\033[0m %s\n' "$*" | plain_unless_tty; }

# Colours only where a person looks.
plain_unless_tty() { if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi; }

# die MESSAGE [HINT]: the message, the hint, exit code 1.
die() {
	printf 'error: %s\n' "$1" >&2
	[ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
	exit 1
}

# as_root COMMAND...: run it as root, with sudo when we are not.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo -- "$@"
	else
		die "root is needed for: $*" "install sudo, or run this as root"
	fi
}

# logged NAME COMMAND...: output to build/log/NAME.log, its end shown when the command fails.
logged() {
	local log="$LOGS/$1.log"
	shift
	if ! "$@" >"$log" 2>&1 </dev/null; then
		tail -n 40 "$log" >&2
		return 1
	fi
}

# hash_of FILE_OR_DIRECTORY...: one hash over names and contents; build outputs left out.
hash_of() {
	find "$@" -path native/target -prune -o -name __pycache__ -prune -o -type f -print0 |
		LC_ALL=C sort -z | xargs -0 sha256sum | hash_text
}

hash_text() { sha256sum | cut -c1-32; }

# is_fresh NAME KEY: was step NAME done with this KEY?
is_fresh() { [ "$(cat "$STAMPS/$1" 2>/dev/null)" = "$2" ]; }

# mark_fresh NAME KEY: step NAME is done with this KEY.
mark_fresh() { printf '%s\n' "$2" >"$STAMPS/$1"; }

# forget NAME: step NAME must be done again.
forget() { rm -f "$STAMPS/$1"; }

# The compiler of the BPF programs: $CLANG if set, else clang-19, else the distribution's.
find_clang() {
	local clang
	for clang in ${CLANG:-clang-19 clang}; do
		if command -v "$clang"; then return; fi
	done
	return 1
}

# What every cargo and maturin call needs; the same everywhere, or cargo builds twice.
use_toolchain() {
	PATH="$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin"
	export PATH
	CLANG=$(find_clang) || die "no clang to compile the BPF programs with" "install clang 14 or newer"
	PYO3_PYTHON="$PWD/$VENV_PYTHON"
	export CLANG PYO3_PYTHON
}
