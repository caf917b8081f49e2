#!/usr/bin/env bash
# What no-op tasks of a program cost: the library beside Parsl and Ray. See docs/benchmarks.md.
set -euo pipefail
export LC_ALL=C.UTF-8
# Nothing is told to anybody.
export RAY_USAGE_STATS_ENABLED=0

usage() {
    cat <<'TEXT'
usage: bench/flow.sh [-n TASKS] [-p TASKS] [-t PYTHON]

  -n TASKS    of the library (100000)
  -p TASKS    of Parsl and Ray (10000)
  -t PYTHON   the interpreter that has parsl and ray (python3); of those that are missing it says so

Each figure is a line. CPU seconds of Parsl and Ray are those of the client: Ray's workers come on top.
TEXT
}

tasks=100000 peers=10000 python=python3
while getopts n:p:t:h option; do
    case $option in
    n) tasks=$OPTARG ;;
    p) peers=$OPTARG ;;
    t) python=$OPTARG ;;
    h) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done
here=$(cd "$(dirname "$0")" && pwd)

echo "== keelboat"
(cd "$here/.." && cargo bench --quiet --bench flow -- "$tasks")
for peer in parsl ray; do
    if version=$("$python" -c "import $peer; print($peer.__version__)" 2>/dev/null); then
        echo "== $peer $version"
        "$python" "$here/flow_peers.py" "$peer" "$peers"
    else
        echo "== $peer is not installed: $python -m pip install $peer"
    fi
done
