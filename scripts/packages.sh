#!/usr/bin/env bash
# Installs the system packages that are missing: packages.sh build|test...
#
# Each line below is what must be there (a command, or a file), then the packages that may bring it,
# first choice first.

source "$(dirname "$0")/lib.sh"
PATH="$PATH:/usr/sbin:/sbin"

BUILD_NEEDS='
autoconf              autoconf
automake              automake
autopoint             autopoint
bison                 bison
clang                 clang-19 clang
flex                  flex
gawk                  gawk
gcc                   gcc
/usr/include/stdio.h  libc6-dev
msgfmt                gettext
libtoolize            libtool
make                  make
pkg-config            pkg-config pkgconf
gzip                  gzip
'
TEST_NEEDS='
chromium              chromium chromium-browser
crun                  crun
debuginfod            debuginfod
dwz                   dwz
g++                   g++
lld                   lld-19 lld
/usr/aarch64-linux-gnu/lib/libc.so.6  libc6-arm64-cross
node                  nodejs
javac                 default-jdk-headless
redis-server          redis-server
redis-benchmark       redis-tools
nginx                 nginx
setarch               util-linux
xz                    xz-utils
zsh                   zsh
'

main() {
	local wanted missing
	wanted=$(for set in "$@"; do needs_of "$set"; done)
	missing=$(missing_of "$wanted")
	if [ -n "$missing" ]; then
		install_all "$missing"
		missing=$(missing_of "$wanted")
		[ -z "$missing" ] || die "still missing after installing: $(names_of "$missing")"
	fi
	check_rust "$@"
}

needs_of() {
	case "$1" in
	build) printf '%s' "$BUILD_NEEDS" ;;
	test) printf '%s' "$TEST_NEEDS" ;;
	*) die "packages.sh build|test, not '$1'" ;;
	esac
}

# The lines of $1 whose command or file is not there.
missing_of() {
	local need packages
	while read -r need packages; do
		[ -z "$need" ] || is_there "$need" || printf '%s %s\n' "$need" "$packages"
	done <<<"$1"
	has_venv || printf 'venv python3-venv\n'
}

is_there() {
	case "$1" in
	clang) find_clang >/dev/null ;;
	lld) find_lld >/dev/null ;;
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

# The linker that clang finds for -fuse-ld=lld.
find_lld() { command -v "$("$(find_clang)" -print-prog-name=ld.lld)"; }

# Debian's python3 comes without the modules that make a virtual environment.
has_venv() { [ -x "$VENV_PYTHON" ] || "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null; }

names_of() { cut -d' ' -f1 <<<"$1" | paste -sd' '; }

install_all() {
	local need choices chosen packages=()
	command -v apt-get >/dev/null ||
		die "missing: $(names_of "$1")" "there is no apt here; install them with your system's package manager"
	refresh_package_lists
	while read -r need choices; do
		# shellcheck disable=SC2086 # the choices are words
		chosen=$(first_available $choices) ||
			die "apt has no package for '$need' (looked for: $choices)" "install '$need' by hand, then run this again"
		packages+=("$chosen")
	done <<<"$1"
	say "installing system packages: ${packages[*]}"
	logged apt-install as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends "${packages[@]}" ||
		die "apt could not install: ${packages[*]}" "see $LOGS/apt-install.log; or install them by hand, then run this again"
}

refresh_package_lists() {
	say "refreshing apt's package lists"
	logged apt-update as_root apt-get update ||
		say "apt-get update failed (see $LOGS/apt-update.log); going on with the lists that are here"
}

first_available() {
	local package
	for package in "$@"; do
		# "  Candidate: (none)" is a name that other packages only mention.
		case $(apt-cache policy "$package" 2>/dev/null) in
		*"Candidate: (none)"*) ;;
		*"Candidate: "*)
			echo "$package"
			return
			;;
		esac
	done
	return 1
}

# Rust comes from rustup, not from apt: distributions carry too old a compiler.
check_rust() {
	local wanted found
	PATH="$PATH:$HOME/.cargo/bin"
	wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' native/Cargo.toml)
	command -v cargo >/dev/null ||
		die "no Rust toolchain (cargo) found" "install Rust $wanted or newer with rustup, then run this again"
	found=$(rustc --version | cut -d' ' -f2)
	[ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] ||
		die "Rust $found is too old, $wanted or newer is needed" "rustup update stable"
	case " $* " in *" test "*) check_rust_components ;; esac
}

check_rust_components() {
	local tool
	for tool in rustfmt clippy; do
		cargo "${tool/rust/}" --version >/dev/null 2>&1 && continue
		say "adding the Rust component $tool"
		logged rustup rustup component add "$tool" ||
			die "the Rust component '$tool' is missing" "rustup component add $tool"
	done
}

main "$@"
