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
subject=data/$name run=output/$name raw=data/$name/$name.mp4
if [[ -z $video ]]; then
  [[ -f $raw ]] || "$python" -m data_utils.synthetic "$subject"
elif [[ ! -f $raw ]]; then
  mkdir -p -- "$subject"
  cp -- "$video" "$raw.part"
  mv -- "$raw.part" "$raw"
elif ! cmp -s -- "$video" "$raw"; then
  echo "demo: $raw is another video than $video; rename yours or move $subject and $run away." >&2
  exit 1
fi

bash scripts/process.sh "$raw"
bash scripts/train.sh "$subject" "$run" --preset quick
bash scripts/synthesize.sh "$subject" "$run" --eval
bash scripts/evaluate.sh "$subject" "$run"
