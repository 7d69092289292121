#!/bin/sh
# run.sh COMMAND…: runs COMMAND while adb reaches an adbd for arm64 as 127.0.0.1:5555, the device emulated-adb.
#
# adbd listens on every address and lets everybody in. So it gets a network of its own, with adb's server beside it, which
# is spoken to through a file; COMMAND keeps the network that it had. Both end with COMMAND. As on a phone, an adbd that
# ends is started again. QEMU_CPU: the processor (default cortex-a76).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${EDGEAV_ADB:-$HOME/.cache/edgeav/emulated-adb}
[ $# -gt 0 ] || { echo "usage: run.sh COMMAND..." >&2; exit 2; }
if [ "$(cat "$place/ready" 2> /dev/null)" != "$(cksum < "$here/build.sh")" ]; then
    echo "emulated-adb: not built in $place, or by another build.sh: sh $here/build.sh (half a minute)" >&2
    exit 3
fi
own=$(mktemp -d)
export ADB_SERVER_SOCKET="localfilesystem:$own/server"
export QEMU_CPU="${QEMU_CPU:-cortex-a76}" ADB_LOCAL_TRANSPORT_MAX_PORT=5553 # or adb finds it once more, as an emulator
unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private sh -c '
    ip link set lo up
    mount -t proc proc "$1/proc" && mount -t sysfs -o ro sys "$1/sys" && mount --rbind /dev "$1/dev"
    adb -L "$ADB_SERVER_SOCKET" nodaemon server > /dev/null 2>&1 &
    while :; do
        chroot "$1" /usr/lib/android-sdk/platform-tools/adbd > /dev/null 2>&1
        sleep 1
    done
' sh "$place/root" &
server=$!
trap 'kill -9 $server 2> /dev/null; rm -rf "$own"' EXIT
trap 'exit 130' INT TERM
tries=0
until [ -S "$own/server" ] && adb connect 127.0.0.1:5555 2> /dev/null | grep -q "^connected\|^already"; do
    tries=$((tries + 1))
    [ $tries -lt 30 ] || { echo "emulated-adb: adbd does not answer" >&2; exit 3; }
    sleep 1
done
adb -s 127.0.0.1:5555 wait-for-device
unset QEMU_CPU
"$@"
