#!/usr/bin/env bash
# Everything that is needed to run sberf from this checkout: setup.sh [test]

source "$(dirname "$0")/lib.sh"

scripts/packages.sh build "$@"
scripts/venv.sh
scripts/build.sh
