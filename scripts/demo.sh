#!/usr/bin/env bash
# Records this machine for 5 seconds while real programs run, then shows what was hot.

source "$(dirname "$0")/lib.sh"
SBERF="$PWD/.venv/bin/sberf"

scripts/setup.sh

say "starting a workload: gcc, python3 and gzip"
setsid scripts/demo_workload.sh &
workload=$!
trap 'kill -- -$workload 2>/dev/null || true' EXIT

say "recording the whole machine for 5 seconds"
as_root "$SBERF" record -a -d 5 -o build/demo.data

say "the hottest functions"
"$SBERF" report -i build/demo.data | sed -n '1,25p'

say "drawing the flame graph"
"$SBERF" flame -i build/demo.data -o flame.html
say "flame.html is written: open it in a browser; see more with: .venv/bin/sberf report -i build/demo.data --tree"
