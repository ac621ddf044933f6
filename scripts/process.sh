#!/usr/bin/env bash
# Turn a raw video into a subject folder, beside the video: scripts/process.sh data/<ID>/<ID>.mp4 [flags]
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 1 "usage: scripts/process.sh data/<ID>/<ID>.mp4 [flags of python -m data_utils.process]" "$@"
exec "$python" -m data_utils.process "$@"
