#!/usr/bin/env bash
# All that is to be measured on a machine with a GPU and no network, in two calls.
#
#   benchmarks/gpu.sh bundle                          here: what the machine lacks, in .gpu
#   benchmarks/gpu.sh first --out OUT --seconds 560   there: probe, kernels, a tiny model, timings,
#                                                     the table's first rows
#   benchmarks/gpu.sh second --out OUT --seconds 560  there: the rest, and training; what an
#                                                     earlier call left lies in .gpu/before
#   benchmarks/gpu.sh STAGE … --out OUT               there: stages by name
#
# --toy rehearses at toy size on a CPU. PYTHON names the Python to take, BUNDLE another folder than .gpu. See docs/hardware.md.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
# the checkout's own folders have names of packages; nothing is to be imported from there
export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
if [ "${1:-}" = bundle ]; then
    PYTHONPATH=benchmarks exec "$python" -m gpu.bundle "${@:2}"
fi
bundle="${BUNDLE:-.gpu}"
if [ ! -d "$bundle/wheels" ]; then
    echo "$bundle/wheels: not there; make it with benchmarks/gpu.sh bundle" >&2
    exit 2
fi
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
"$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --disable-pip-version-check --target "$site" "$bundle"/wheels/*.whl
PYTHONPATH="$site:$PWD/benchmarks" "$python" -m gpu "$@" --bundle "$bundle"
