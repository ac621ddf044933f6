#!/usr/bin/env bash
# Which public weights are here, what each unlocks, and where the missing ones are got and put. Downloads nothing.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 0 "usage: scripts/prepare.sh [--status]" "$@"
exec "$python" -m gaussian_head.prepare "$@"
