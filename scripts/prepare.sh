#!/usr/bin/env bash
# Fetch public weights: what anyone may use, or those named. Says where a person gets the others. None is needed.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 0 "usage: scripts/prepare.sh [NAME ...] [--status]" "$@"
exec "$python" -m gaussian_head.prepare "$@"
