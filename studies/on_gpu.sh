#!/usr/bin/env bash
# Run everything of this project that needs a GPU, in order of importance, within a time limit:
# correctness, energy, speed, and the paper's networks. What has rows already is skipped.
#
#   studies/on_gpu.sh SECONDS [OPTION OF gpu_visit.py …]
#   DEVICE=cpu studies/on_gpu.sh 120 --preset gpu-tiny --results FOLDER
#
# BUNDLE is the folder of `make gpu-bundle`, PYTHON the interpreter that has PyTorch.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! [[ ${1:-} =~ ^[0-9]+$ ]]; then
    echo "usage: $0 SECONDS [OPTION OF gpu_visit.py …]: expected a whole number of seconds, such as 480" >&2
    exit 2
fi
limit=$((10#$1))
shift
bundle=$(realpath -m "${BUNDLE:-.gpu}") python=${PYTHON:-python3}
export DEVICE=${DEVICE:-cuda} PYTHONUNBUFFERED=1 PYTHONPATH="$PWD/src:$PWD/tests/helpers:${PYTHONPATH:-}"
if [ -d "$bundle/site" ]; then
    PYTHONPATH="$bundle/site:$PYTHONPATH"
fi
if ! "$python" -c 'import codecarbon, kornia, msgspec, typer' 2>/dev/null; then
    if ! ls "$bundle"/wheels/*.whl >/dev/null 2>&1; then
        echo "no wheels in $bundle/wheels: run \`make gpu-bundle\` where there is a network, and bring .gpu along" >&2
        exit 1
    fi
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$bundle/site" "$bundle"/wheels/*.whl
    PYTHONPATH="$bundle/site:$PYTHONPATH"
fi
if [ ! -d /usr/share/datasets/fashion-mnist ] && [ -d "$bundle/fashion-mnist" ]; then
    export FASHION_MNIST="$bundle/fashion-mnist"
fi
"$python" studies/gpu_visit.py --seconds "$((limit - SECONDS))" "$@"
