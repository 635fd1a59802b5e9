# `make help` lists the targets.  The work is done by scripts/, one script a target.

.DEFAULT_GOAL := help
.PHONY: help demo build test wheel fmt clean

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo:  ## Set up, record this machine for 5 s under load, print the hottest functions, write flame.html
	@scripts/demo.sh

build:  ## Set up: system packages, .venv, the native core; then .venv/bin/sberf works
	@scripts/setup.sh

test:  ## Set up, then run every check and test
	@scripts/test.sh

wheel:  ## Build the self-contained wheel into dist/
	@scripts/wheel.sh

fmt:  ## Format the Python and Rust sources, write docs/tables.md anew
	@scripts/fmt.sh

clean:  ## Remove everything that was built, also .venv
	@scripts/clean.sh
