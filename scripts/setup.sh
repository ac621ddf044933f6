#!/usr/bin/env bash
# Make .venv with the pinned packages and the built extension; a second run finds it up to date.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
require_args 0 "usage: scripts/setup.sh    (PYTHON=/path/to/python3.11 chooses the interpreter)" "$@"
cd -- "$root"
venv=$root/.venv

say() { echo "setup: $*"; }
die() {
  echo "setup: $*" >&2
  exit 1
}

supported() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3 python; do
    if supported "$candidate"; then
      command -v -- "$candidate"
      return
    fi
  done
  die "Python 3.11 or 3.12 is needed, found $(python3 --version 2>&1 || true). Install one of them, or name it: PYTHON=/path/to/python3.11"
}

find_compiler() {
  local candidate
  for candidate in c++ g++ clang++; do # as in setup.py
    if command -v -- "$candidate"; then return; fi
  done
}

run_pip() {
  "$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check "$@" ||
    die "pip could not install the packages (its message is above). The first run needs a package index and 3 GB of disk."
}

make_venv() {
  if [[ -x $venv/bin/python ]] && supported "$venv/bin/python" && [[ $(cat "$venv/stamp_root" 2>/dev/null) == "$root" ]]; then
    return
  fi
  local base
  base=$(find_python)
  say "[1/5] .venv from $base ($("$base" --version))"
  rm -rf -- "$venv"
  "$base" -m venv "$venv" || die "$base -m venv failed. On Debian and Ubuntu, install its venv package (python3-venv) first."
  echo "$root" >"$venv/stamp_root"
}

install_packages() {
  local stamp
  stamp=$(sha256sum <requirements.lock)
  [[ $(cat "$venv/stamp_packages" 2>/dev/null) != "$stamp" ]] || return 0
  say "[2/5] the packages of requirements.lock (one to five minutes)"
  grep -v '^torch==' requirements.lock >"$venv/without_torch.txt"
  run_pip --no-deps -r "$venv/without_torch.txt"
  say "[3/5] torch (a CUDA build of it brings its own libraries)"
  run_pip --constraint requirements.lock "$(grep '^torch==' requirements.lock)"
  swap_opencv_without_display
  echo "$stamp" >"$venv/stamp_packages"
}

swap_opencv_without_display() { # a machine without libGL cannot load the usual build
  if "$venv/bin/python" -c 'import cv2' 2>/dev/null; then return; fi
  say "      OpenCV cannot load here (no libGL): taking its headless build, same version"
  "$venv/bin/python" -m pip uninstall -qq -y opencv-contrib-python
  run_pip --no-deps --force-reinstall "$(sed -n 's/^opencv-contrib-python==/opencv-contrib-python-headless==/p' requirements.lock)"
  "$venv/bin/python" -c 'import cv2' || die "OpenCV cannot be imported (its message is above)."
}

install_project() {
  local compiler stamp library=cuda_ext/_operators_cpu.so cuda_library=cuda_ext/_operators_cuda.so
  compiler=$(find_compiler || true)
  stamp=$({
    command -v nvcc || true
    echo "${GAUSSIAN_HEAD_CUDA:-}"
    cat pyproject.toml setup.py
    find cuda_ext/csrc -type f -print0 | sort -z | xargs -0 cat
  } | sha256sum)
  if [[ $(cat "$venv/stamp_project" 2>/dev/null) == "$stamp" && (-z $compiler || -f $library) ]]; then return; fi
  say "[4/5] this project (editable) and its extension (compiler: ${compiler:-none})"
  rm -f -- cuda_ext/_operators_*.so
  run_pip --no-deps --no-build-isolation --editable .
  echo "$stamp" >"$venv/stamp_project"
  if [[ -z $compiler ]]; then
    say "      No C++ compiler: everything runs on the plain PyTorch operators, slowly."
    say "      Install one (Debian and Ubuntu: g++) and run this again to build the fast ones."
  elif [[ ! -f $library ]]; then
    say "      The extension did not compile: everything runs on the plain PyTorch operators, slowly."
    say "      To see why: .venv/bin/python setup.py build_ext --inplace"
  fi
  if [[ -f $cuda_library ]]; then
    say "      CUDA operators built; registers / bytes of stack / bytes spilled of their kernels:"
    sed '/^$/Q' "${cuda_library%.so}.ptxas.txt"
  elif command -v nvcc >/dev/null && [[ ${GAUSSIAN_HEAD_CUDA:-} != 0 ]]; then
    say "      nvcc is here but could not compile the CUDA operators."
    say "      To see why: .venv/bin/python setup.py build_ext --inplace"
  fi
}

stamps_before=$(cat "$venv"/stamp_* 2>/dev/null || true)
make_venv
install_packages
install_project
if [[ $(cat "$venv"/stamp_*) == "$stamps_before" ]]; then
  say ".venv is up to date"
else
  say "[5/5] done"
fi
