#!/usr/bin/env bash
# From a video (or the procedural subject, without one) to a talking head, its report and its table.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 0 "usage: scripts/demo.sh [VIDEO]" "$@"

if (($#)); then
  video=$(realpath -- "$1")
  [[ -f $video ]] || {
    echo "demo: $1 is not a file; give the path of a video of one talking person." >&2
    exit 1
  }
  name=$(basename -- "$video")
  name=${name%.*}
else
  video='' name=demo
fi

cd -- "$root"
bash scripts/setup.sh
python=$root/.venv/bin/python
subject=data/$name run=output/$name
if [[ -z $video ]]; then
  video=$subject/$name.mp4
  "$python" -m data_utils.synthetic "$subject"
fi

bash scripts/process.sh "$video" --out "$subject"
bash scripts/train.sh "$subject" "$run" --preset quick
bash scripts/synthesize.sh "$subject" "$run" --eval
bash scripts/evaluate.sh "$subject" "$run"
