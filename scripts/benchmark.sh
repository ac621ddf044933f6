#!/usr/bin/env bash
# Run the demo on the procedural subject and on each video; from the reports write docs/benchmarks.md and the README's picture.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 0 "usage: scripts/benchmark.sh [VIDEO...]    (twelve minutes a subject on two cores)" "$@"
bash "$root/scripts/demo.sh"
runs=("$root/output/demo")
for video in "$@"; do
  bash "$root/scripts/demo.sh" "$video"
  name=$(basename -- "$video")
  runs+=("$root/output/${name%.*}")
done
mkdir -p "$root/docs/images"
cp -- "$root/output/demo/contact_sheet.png" "$root/docs/images/demo.png"
exec "$root/.venv/bin/python" -m gaussian_head.benchmark "${runs[@]}" --out "$root/docs/benchmarks.md"
