#!/usr/bin/env bash
# Show the training curves and preview pictures of one run, or of all of output/.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 0 "usage: scripts/tensorboard.sh [output/<name>] [flags of tensorboard]" "$@"
run=$root/output
if [[ ${1:-} && $1 != -* ]]; then
  run=$1
  shift
fi
exec "$python" -m tensorboard.main --logdir "$run" "$@"
