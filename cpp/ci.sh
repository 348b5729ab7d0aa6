#!/usr/bin/env bash
# Build and test libdefectrt: release (shared and static), the optional parts, sanitizers, fuzzers.
# What is installed is tested from Python (tests/cpp/test_cpp_package.py).
#
#   cpp/ci.sh [BUILD]          default .cache/ci-cpp
#
# PYTHON names the Python whose ONNX Runtime library is used; JOBS how many compilers run at once.
# Packages that are missing are installed with apt-get, if this is root.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-.cache/ci-cpp}
jobs=${JOBS:-2}
root=$PWD
python=${PYTHON:-python3}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=$root/.venv/bin/python
export ONNXRUNTIME_ROOT=${ONNXRUNTIME_ROOT:-$root/.cache/onnxruntime-sdk}

missing=()
for pair in cmake:cmake ninja:ninja-build c++:g++ npm:npm pkg-config:pkg-config clang++:clang; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
fuzzer() {  # the path of libFuzzer's library, or of what clang would like to see there
    clang++ -print-file-name="libclang_rt.fuzzer-$(uname -m).a" 2>/dev/null
}
[ -e "$(fuzzer)" ] || missing+=(libclang-rt-dev)
[ -e /usr/include/gtest/gtest.h ] || missing+=(libgtest-dev)
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "install: ${missing[*]}" >&2; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
cpp/cmake/fetch-onnxruntime.sh "$ONNXRUNTIME_ROOT" "$python"

make() {  # NAME OPTIONS…
    local name=$1
    shift
    cmake -S . -B "$build/$name" -G Ninja --log-level=WARNING -DDEFECTRT_WERROR=ON \
        -DDEFECTRT_TESTS=ON "${launcher[@]}" "$@"
    cmake --build "$build/$name" --parallel "$jobs" -- --quiet
}
check() {  # NAME CTEST-OPTIONS…
    local name=$1
    shift
    ctest --test-dir "$build/$name" --output-on-failure --no-tests=error --parallel "$jobs" "$@" |
        grep -vE '^ *(Start|[0-9]+/)' || return 1
}

make release
check release

# TensorRT's headers can be had, its libraries cannot: both flavours are compiled, never run.
cpp/experimental/fetch-tensorrt-headers.sh "$root/.cache/tensorrt-headers" "$python"
for backend in tensorrt tensorrt-rtx; do
    cmake -S . -B "$build/$backend" -G Ninja --log-level=ERROR -DDEFECTRT_WERROR=ON \
        "${launcher[@]}" -DDEFECTRT_EXPERIMENTAL_TENSORRT=$backend -DTENSORRT_ROOT="$root/.cache/tensorrt-headers" -DDEFECTRT_TESTS=OFF \
        -DCMAKE_BUILD_TYPE=Debug
    # and what knows of it
    cmake --build "$build/$backend" --parallel "$jobs" --target defectrt_tensorrt \
        cpp/CMakeFiles/defectrt_objects.dir/src/{engine,c_api}.cpp.o -- --quiet
done

# With libtorch, out of the Python's wheel; what it opens is tested from there (test_cpp_aoti.py).
if torch=$("$python" -c 'import torch; print(torch.utils.cmake_prefix_path)' 2>/dev/null); then
    make torch -DDEFECTRT_WITH_TORCH=ON -DCMAKE_PREFIX_PATH="$torch" -DDEFECTRT_TESTS=OFF \
        -DDEFECTRT_STATIC=OFF -DDEFECTRT_EXAMPLES=OFF
    cmake -DNM="$(command -v nm)" -DLIBRARY="$build/torch/cpp/libdefectrt.so" \
        -DLIST=cpp/tests/symbols.txt -P cpp/tests/symbols.cmake
else
    echo "$python has no torch: the part for AOTInductor engines is not compiled" >&2
fi

checked=(-DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1"
    -DDEFECTRT_SHARED=OFF -DDEFECTRT_EXAMPLES=OFF)
export LSAN_OPTIONS=suppressions=$root/cpp/tests/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1
make address "${checked[@]}" -DDEFECTRT_SANITIZE=address,undefined
check address
export TSAN_OPTIONS=suppressions=$root/cpp/tests/tsan.supp:halt_on_error=1:report_mutex_bugs=0
make thread "${checked[@]}" -DDEFECTRT_SANITIZE=thread
check thread -R 'Tasks|Session|Synthesize|Exit'

# 30 s each, from a fixed seed, on top of the corpus.
make fuzz "${checked[@]}" -DDEFECTRT_SANITIZE=address,undefined -DDEFECTRT_FUZZ=ON \
    -DDEFECTRT_TESTS=OFF -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++
check fuzz
