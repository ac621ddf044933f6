# Sourced by the other scripts: sets root, python (.venv's, else the active environment's), waiting threads; require_args.
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
[[ -x $python ]] || python=python
# Threads that spin long while they wait are ten times slower beside another program; a short spin saves them the sleep.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

require_args() { # COUNT USAGE ARGS...: print the usage line and stop when help is asked for or arguments are missing
  local count=$1 usage=$2
  shift 2
  case ${1:-} in -h | --help)
    echo "$usage"
    exit 0
    ;;
  esac
  if (($# < count)) || { ((count > 0)) && [[ $1 == -* ]]; }; then
    echo "$usage" >&2
    exit 2
  fi
}
