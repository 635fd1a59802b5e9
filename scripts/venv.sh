#!/usr/bin/env bash
# Makes .venv with what sberf and its checks import; does nothing when pyproject.toml asks for the same.

source "$(dirname "$0")/lib.sh"

main() {
	local python key
	python=$(find_python) ||
		die "Python 3.11 or newer is needed" "install it, or name it: make PYTHON=/path/to/python3.11 ..."
	key=$({ "$python" -VV; requirements "$python"; } | hash_text)
	if [ -x "$VENV_PYTHON" ] && is_fresh venv "$key"; then return; fi
	forget venv
	say "making .venv with $("$python" -V)"
	"$python" -m venv --clear .venv || die "$python cannot make a virtual environment" "apt install python3-venv"
	requirements "$VENV_PYTHON" >build/requirements.txt
	logged pip "$VENV_PYTHON" -m pip install --disable-pip-version-check -r build/requirements.txt ||
		die "pip could not install the Python packages" "see $LOGS/pip.log; is a package index reachable?"
	mark_fresh venv "$key"
}

# The first Python that is new enough: $PYTHON, the one of .venv's making, python3, and its newer siblings.
find_python() {
	local python
	for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
		if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			command -v "$python"
			return
		fi
	done
	return 1
}

# pyproject.toml's dependencies, extras and development group, one a line.
requirements() {
	"$1" - <<-'END'
		import tomllib

		with open("pyproject.toml", "rb") as file:
		    pyproject = tomllib.load(file)
		project = pyproject["project"]
		extras = project["optional-dependencies"].values()
		groups = pyproject["dependency-groups"].values()
		print("\n".join(sum([*extras, *groups], start=project["dependencies"])))
	END
}

main
