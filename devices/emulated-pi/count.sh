#!/bin/sh
# count.sh OUT PROGRAM ARGS...: runs an arm64 program under qemu-user and writes the number of its instructions to OUT.
#
# For device files that say `connect: local` and `instruction_counter: …/count.sh`; the emulated Pis have their own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${EDGEAV_PI:-$HOME/.cache/edgeav/emulated-pi}
out=$1
shift
for program in qemu-aarch64 cc; do
    command -v "$program" > /dev/null || { echo "needs $program: apt-get install qemu-user gcc" >&2; exit 1; }
done
mkdir -p "$cache"
if [ ! -e "$cache/libcount.so" ] || [ "$here/count-instructions.c" -nt "$cache/libcount.so" ]; then
    cc -O2 -shared -fPIC -o "$cache/libcount.$$" "$here/count-instructions.c"
    mv "$cache/libcount.$$" "$cache/libcount.so"
fi
exec qemu-aarch64 -plugin "$cache/libcount.so,out=$out" "$@"
