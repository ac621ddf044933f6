#!/usr/bin/env bash
# Let a trained head speak: a video with sound, from the subject's own speech or from any other.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 2 "usage: scripts/synthesize.sh data/<ID> output/<name> [--audio speech.wav] [other flags]" "$@"
subject=$1 run=$2
shift 2
exec "$python" -m gaussian_head.synthesize -S "$subject" -M "$run" "$@"
