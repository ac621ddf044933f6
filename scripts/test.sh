#!/usr/bin/env bash
# Set up, lint, and run the whole test suite, files side by side on up to four cores; fails when anything fails.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 0 "usage: scripts/test.sh [flags of pytest]" "$@"
cd -- "$root"
bash scripts/setup.sh
python=$root/.venv/bin/python
failed=()
"$python" -m ruff check . || failed+=("ruff check")
"$python" -m ruff format --check . || failed+=("ruff format")
cores=$(getconf _NPROCESSORS_ONLN)
# Threads that wait asleep: two processes share the cores. Files stay whole, so that their fixtures are made once.
OMP_WAIT_POLICY=passive "$python" -m pytest -n $((cores < 4 ? cores : 4)) --dist loadfile "$@" || failed+=("pytest")
if ((${#failed[@]})); then
  printf 'test: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
