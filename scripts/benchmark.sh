#!/usr/bin/env bash
# Run the demo on each video (on the procedural subject, without one) and write docs/benchmarks.md from the reports.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 0 "usage: scripts/benchmark.sh [VIDEO...]    (ten minutes a video on two cores)" "$@"
runs=()
for video in "$@"; do
  bash "$root/scripts/demo.sh" "$video"
  name=$(basename -- "$video")
  runs+=("$root/output/${name%.*}")
done
if ((!$#)); then
  bash "$root/scripts/demo.sh"
  runs=("$root/output/demo")
fi
exec "$root/.venv/bin/python" -m gaussian_head.benchmark "${runs[@]}" --out "$root/docs/benchmarks.md"
