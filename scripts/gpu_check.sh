#!/usr/bin/env bash
# Build, test, check and time the CUDA operators here in eight minutes at most; write docs/gpu.md and docs/gpu.json.
# A step that fails is reported and the next one runs. $OUT, if set, is a folder that receives the pages and the logs.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 0 "usage: scripts/gpu_check.sh    (PYTHON=/path/to/python3 chooses the interpreter)" "$@"
cd -- "$root"
seconds_in_all=480 failed=0
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

find_python() { # the first that has torch, one that sees a GPU before others
  local candidate code
  for code in 'import torch; assert torch.cuda.is_available()' 'import torch'; do
    for candidate in ${PYTHON:+"$PYTHON"} "$root/.venv/bin/python" python3 python; do
      if "$candidate" -c "$code" >/dev/null 2>&1; then
        command -v -- "$candidate"
        return
      fi
    done
  done
  echo "gpu_check: no Python with torch here; name one: PYTHON=/path/to/python3" >&2
  exit 1
}

report() { # NAME STATUS SECONDS DETAIL
  printf '%s\t%s\t%s\t%s\n' "$@" >>"$work/steps.tsv"
  echo "gpu_check: $1: $2 ($3 s) $4"
}

skip() { report "$1" skipped 0 "$2"; } # NAME REASON

run_step() { # NAME SECONDS COMMAND...: under its own time limit, its output in a log
  local name=$1 limit=$2 begin=$SECONDS code=0 left=$((seconds_in_all - SECONDS)) status=passed
  shift 2
  ((limit < left)) || limit=$left
  if ((limit < 5)); then
    skip "$name" "no time left"
    return
  fi
  timeout --kill-after=5 "$limit" "$@" >"$work/$name.log" 2>&1 </dev/null || code=$?
  if ((code)); then
    status=failed failed=1
    ((code != 124)) || status="failed: over $limit s"
  fi
  report "$name" "$status" $((SECONDS - begin)) "$(tail -n 1 "$work/$name.log" | tr '\t|' '  ' | cut -c1-160)"
}

python=$(find_python)
code='import torch; print("%d%d" % torch.cuda.get_device_capability() if torch.cuda.is_available() else "")'
gpu=$("$python" -c "$code")
{
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no GPU"
  "$python" -c 'import sys, torch; print("Python", sys.version.split()[0], "torch", torch.__version__)'
  nvcc --version 2>/dev/null | tail -n 1 || echo "no nvcc"
} >"$work/machine.txt"
cat "$work/machine.txt"

library=cuda_ext/_operators_cuda.so
if command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; then
  # Where there is a GPU, for that one alone: a fraction of the time.
  run_step build 300 env GAUSSIAN_HEAD_CUDA="$gpu" "$python" setup.py --verbose build_ext --inplace
elif [[ -f $library ]]; then
  skip build "no nvcc here: the library that is there is taken"
else
  skip build "no nvcc here and no $library: bring one"
fi
[[ ! -f ${library%.so}.ptxas.txt ]] || cp -- "${library%.so}.ptxas.txt" "$work/ptxas.txt"

if [[ -z $gpu ]]; then
  for name in tests benchmark memcheck racecheck synccheck train; do skip "$name" "no GPU"; done
else
  options=(-m cuda -q -p no:cacheprovider -o filterwarnings=default)
  "$python" -c 'import beartype' 2>/dev/null || options+=(-o addopts=--strict-markers)
  run_step tests 150 "$python" -m pytest "${options[@]}" tests/cuda_ext tests/parity
  run_step benchmark 90 "$python" benchmarks/rasterize_cuda.py --json "$work/benchmark.json"
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1 # every tensor a block of its own, or memcheck could not see past its end
  for tool in memcheck racecheck synccheck; do
    if command -v compute-sanitizer >/dev/null; then
      run_step "$tool" 45 compute-sanitizer --tool "$tool" --error-exitcode 1 \
        "$python" benchmarks/rasterize_cuda.py --once
    else
      skip "$tool" "no compute-sanitizer"
    fi
  done
  unset PYTORCH_NO_CUDA_MEMORY_CACHING
  if "$python" -m gaussian_head.train all --help 2>/dev/null | grep -q -- --device; then
    subject=$work/subject
    run_step subject 60 "$python" -m data_utils.synthetic "$subject"
    run_step process 90 "$python" -m data_utils.process "$subject"/*.mp4 --out "$subject"
    run_step train 200 "$python" -m gaussian_head.train all --data "$subject" --out "$work/run" --preset full \
      --device cuda
  else
    skip train "the trainer takes no --device, or its packages are missing"
  fi
fi

"$python" benchmarks/gpu_page.py "$work"
if [[ -n ${OUT:-} ]]; then
  cp -- docs/gpu.md docs/gpu.json "$OUT"
  find "$work" -name '*.log' -exec tail -n +1 -- {} + >"$OUT/gpu_check.log"
fi
exit "$failed"
