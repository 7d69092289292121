#!/bin/sh
# A phone's debug bridge without a phone: the real adbd for arm64 with what it needs, from Debian, run by qemu-user.
#
#   apt-get install adb qemu-user-static binfmt-support debootstrap
#   sh devices/emulated-adb/build.sh                          half a minute and 250 MB, once
#   sh devices/emulated-adb/run.sh edgeav devices emulated-adb
#
# It is glibc's Linux, not Android: what is tested is adb (its shell, its pushes, its faults), and a program for arm64.
# Packages are unpacked, not configured, so nothing has to be emulated here. Needs root. EDGEAV_ADB: where to build.
set -eu
place=${EDGEAV_ADB:-$HOME/.cache/edgeav/emulated-adb}
root=$place/root

fail() { echo "emulated-adb: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root, for chroot and mounts"
for program in debootstrap dpkg-deb qemu-aarch64-static update-binfmts adb unshare; do
    command -v "$program" > /dev/null || fail "needs $program: see the first lines of $0"
done
mkdir -p "$place"
exec 9> "$place/lock"
flock 9 # a second build waits, and then finds everything done
[ "$(cat "$place/ready" 2> /dev/null)" = "$(cksum < "$0")" ] && exit 0

mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64
rm -rf "$root"
# bookworm has no adbd.
debootstrap --arch=arm64 --foreign --variant=minbase --include=adbd trixie "$root" > "$place/log" 2>&1 ||
    fail "debootstrap failed: see $place/log"
for package in "$root"/var/cache/apt/archives/*.deb; do
    name=$(basename "$package")
    ! grep -qw "${name%%_*}" "$root/debootstrap/required" || continue # unpacked already
    dpkg-deb -x "$package" "$root"
done
rm -rf "$root/debootstrap" "$root"/var/cache/apt/archives/*.deb "$root/proc"
mkdir -p "$root/proc" "$root/data/local/tmp" # /proc was a link to the host's
cksum < "$0" > "$place/ready" # run.sh refuses what an older build.sh left
