#!/bin/sh
# The SSH servers of the emulated Pis on 127.0.0.1, by key only: 22204 is a Pi 4 (cortex-a72, no dot products), 22205 a
# Pi 5 (cortex-a76, dot products).
#
#   sh devices/emulated-pi/serve.sh start | stop | status
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${EDGEAV_PI:-$HOME/.cache/edgeav/emulated-pi}
root=$place/root

start() { # model, cpu
    port=2220$1
    stopped "$1" || return 0
    cat > "$root/etc/ssh/emulated-pi-$1" << END
Port $port
ListenAddress 127.0.0.1
HostKey /etc/ssh/emulated_pi_host_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
MaxStartups 100
SetEnv QEMU_CPU=$2
END
    # Mounts in a namespace of their own: they end with the server. ONNX Runtime reads the processor from cpuinfo, which
    # must be an Arm's; XNNPACK wants /sys.
    QEMU_CPU=$2 setsid unshare -m --propagation private sh -c '
        mount -t proc proc "$1/proc" && mount --bind "$2" "$1/proc/cpuinfo" && mount -t sysfs -o ro sys "$1/sys" &&
        mount --rbind /dev "$1/dev" && mkdir -p "$1/run/sshd" &&
        exec chroot "$1" /usr/sbin/sshd -D -f "/etc/ssh/emulated-pi-$3" -E "/var/log/sshd-$3"
    ' sh "$root" "$here/cpuinfo-pi-$1" "$1" < /dev/null > "$place/serve-$1.log" 2>&1 &
    echo $! > "$place/pid-$1"
}

stopped() { ! tr '\0' ' ' 2> /dev/null < "/proc/$(cat "$place/pid-$1" 2> /dev/null || echo none)/cmdline" |
    grep -q "emulated-pi-$1"; }

case ${1:-} in
start)
    if [ "$(cat "$place/ready" 2> /dev/null)" != "$(cksum < "$here/build.sh")" ]; then
        echo "emulated-pi: not built in $place, or by another build.sh: sh $here/build.sh (six minutes if new)" >&2
        exit 1
    fi
    start 4 cortex-a72
    start 5 cortex-a76
    ;;
stop)
    for model in 4 5; do
        stopped $model || kill "$(cat "$place/pid-$model")"
        rm -f "$place/pid-$model"
    done
    ;;
status) for model in 4 5; do stopped $model && echo "$model: stopped" || echo "$model: port 2220$model"; done ;;
*) echo "usage: serve.sh start | stop | status" >&2; exit 2 ;;
esac
