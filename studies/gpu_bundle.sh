#!/usr/bin/env bash
# Collect what a GPU machine without a network lacks: wheels, and the four files of Fashion-MNIST.
#   studies/gpu_bundle.sh PYTHON PYTHON_VERSION DATA FOLDER
set -euo pipefail
python=$1 version=$2 data=$3 folder=$4
here=$(dirname "$0")
mkdir -p "$folder/wheels" "$folder/fashion-mnist"
platforms=()
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${platform}_x86_64")
done
"$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version "$version" \
    "${platforms[@]}" --dest "$folder/wheels" --requirement "$here/gpu_wheels.txt"
# pycountry's translations are 7 MB that nothing here reads.
"$python" - "$folder"/wheels/pycountry-*.whl <<'PYTHON'
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

for path in map(Path, sys.argv[1:]):
    with ZipFile(path) as whole:
        kept = {name: whole.read(name) for name in whole.namelist() if "/locales/" not in name}
    with ZipFile(path, "w", ZIP_DEFLATED) as trimmed:
        for name, content in kept.items():
            trimmed.writestr(name, content)
PYTHON
cp "$data"/*-ubyte.gz "$folder/fashion-mnist/"
du -sh "$folder"/*
