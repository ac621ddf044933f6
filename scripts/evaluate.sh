#!/usr/bin/env bash
# Measure a trained head on the frames it has not seen: report, page, contact sheet, table.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 2 "usage: scripts/evaluate.sh data/<ID> output/<name> [flags of python -m gaussian_head.evaluate]" "$@"
subject=$1 run=$2
shift 2
exec "$python" -m gaussian_head.evaluate -S "$subject" -M "$run" "$@"
