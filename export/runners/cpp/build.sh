#!/bin/sh
# Build the runner and put the libraries that it needs beside it:  sh build.sh x86_64|aarch64 OUT
#
# For this machine from the installed executorch wheel; for another one pip downloads that one's wheel and a cross compiler
# is used (apt-get install g++-aarch64-linux-gnu). Under a minute. PYTHON: an interpreter with executorch and cmake.
set -eu
arch=${1:?usage: build.sh x86_64|aarch64 OUT}
out=${2:?usage: build.sh x86_64|aarch64 OUT}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# PyPI's cmake lies beside python; the system's may be too old, and says so.
PATH=$(dirname "$("$python" -c 'import sys; print(sys.executable)')"):$PATH
version=$("$python" -c 'from importlib.metadata import version; print(version("executorch"))')

if [ "$arch" = "$(uname -m)" ]; then
    wheel=$("$python" -c 'import importlib.util as u; print(u.find_spec("executorch").submodule_search_locations[0])')
    set --
else
    compiler=$arch-linux-gnu-g++
    command -v "$compiler" > /dev/null || { echo "needs $compiler: apt-get install g++-$arch-linux-gnu" >&2; exit 1; }
    tag=cp311 # the wheel's C++ part is the same for every Python
    "$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
        --python-version 3.11 --abi "$tag" --platform "manylinux_2_28_$arch" -d "$work" "executorch==$version"
    "$python" -m zipfile -e "$work"/executorch-*.whl "$work/wheel"
    wheel=$work/wheel/executorch
    set -- -DCMAKE_SYSTEM_NAME=Linux "-DCMAKE_SYSTEM_PROCESSOR=$arch" "-DCMAKE_CXX_COMPILER=$compiler"
fi
mkdir -p "$out"
cmake -S "$here" -B "$work/build" "-DCMAKE_PREFIX_PATH=$wheel" "$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
cmake --build "$work/build" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
cp "$work/build/run_bundle" "$out/"
# The wheel's package links all of its libraries but Qualcomm's.
for library in "$wheel"/lib/libexecutorch*.so; do
    case $library in *_qnn.so) ;; *) cp "$library" "$out/" ;; esac
done
