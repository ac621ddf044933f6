#!/usr/bin/env bash
# Train landmarks, mouth, face, fuse and torso, in that order; continues where it was stopped.
# A subject folder that another tool made first gets what it lacks.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 2 "usage: scripts/train.sh data/<ID> output/<name> [GPU_ID] [flags of python -m gaussian_head.train]" "$@"
subject=$1 run=$2
shift 2
if [[ ${1:-} =~ ^[0-9,]+$ ]]; then
  export CUDA_VISIBLE_DEVICES=$1
  shift
fi
if [[ -d $subject && ! -f $subject/manifest.json ]]; then
  "$python" -m data_utils.complete "$subject"
fi
exec "$python" -m gaussian_head.train all --data "$subject" --out "$run" "$@"
