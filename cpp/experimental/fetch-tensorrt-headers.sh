#!/usr/bin/env bash
# EXPERIMENTAL: put the headers of TensorRT and of the CUDA runtime where there are none, to compile against.
#
#   fetch-tensorrt-headers.sh DIR [PYTHON]
#
# Then configure with -DDEFECTRT_EXPERIMENTAL_TENSORRT=tensorrt -DTENSORRT_ROOT=DIR. TensorRT's
# (Apache 2.0) come from the PyPI package kernel-lens, CUDA's (NVIDIA's licence) from
# nvidia-cuda-runtime and nvidia-cuda-crt. There is no library among them: what is compiled so can neither be linked nor
# run. Does nothing if DIR is complete already.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,10s/^# \?//p' "$0" >&2; exit 2; }
dir=$1
python=${2:-python3}
[ -e "$dir/include/NvInfer.h" ] && [ -e "$dir/include/crt/host_defines.h" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/pinned.txt" <<'PINNED'
kernel-lens==2.0.1 --hash=sha256:07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0
nvidia-cuda-runtime==13.5.37 --hash=sha256:df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d
nvidia-cuda-crt==13.5.37 --hash=sha256:e898b7f73d3035fa89915a3f7bf3b54a73e90249746111aed295822c4729bb29
PINNED
"$python" -m pip download --quiet --no-deps --only-binary :all: --platform manylinux2014_x86_64 \
    --require-hashes --requirement "$work/pinned.txt" --dest "$work"
mkdir -p "$dir/include"
"$python" - "$work" "$dir/include" <<'PY'
import pathlib
import sys
import zipfile

work, out = map(pathlib.Path, sys.argv[1:])
for wheel in work.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            folder, _, inside = name.partition("/include/")
            inside = inside.removeprefix("tensorrt/")
            if not inside.endswith((".h", ".hpp")) or ".." in inside:
                continue
            to = out / inside
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(archive.read(name))
PY
