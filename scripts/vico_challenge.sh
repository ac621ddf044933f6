#!/usr/bin/env bash
# Videos of speakers for a ViCo challenge folder, in six steps: scripts/vico_challenge.sh DATA OUT [--step N] [flags]
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 2 "usage: scripts/vico_challenge.sh DATA OUT [flags of python -m gaussian_head.oneshot.challenge]" "$@"
exec "$python" -m gaussian_head.oneshot.challenge "$@"
