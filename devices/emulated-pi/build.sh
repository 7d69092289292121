#!/bin/sh
# A Raspberry Pi without a Raspberry Pi: Debian for arm64 in a folder, run by qemu-user, with an SSH server of its own.
#
#   apt-get install qemu-user-static qemu-user binfmt-support debootstrap openssh-client gcc
#   sh devices/emulated-pi/build.sh             about six minutes and 900 MB, once; what is finished is not done again
#   sh devices/emulated-pi/serve.sh start       then: edgeav devices emulated-pi-4 emulated-pi-5
#
# Its times are those of an emulator and mean nothing. Transcripts, golden vectors and counts of instructions do.
# Needs root. PYTHON: an interpreter with pip (default python3). EDGEAV_PI: where to build.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${EDGEAV_PI:-$HOME/.cache/edgeav/emulated-pi}
root=$place/root
python=${PYTHON:-python3}
constraints=$here/../../constraints.txt

say() { echo "emulated-pi: $*" >&2; }
fail() { say "$*"; exit 1; }
done_already() { [ -e "$place/done-$1" ]; }
finished() { touch "$place/done-$1"; say "$1: done after $(($(cut -d. -f1 /proc/uptime) - began)) s"; }
began=$(cut -d. -f1 /proc/uptime)

[ "$(id -u)" = 0 ] || fail "needs root, for chroot and mounts"
for program in debootstrap qemu-aarch64 qemu-aarch64-static update-binfmts ssh-keygen cc; do
    command -v "$program" > /dev/null || fail "needs $program: see the first lines of $0"
done
mkdir -p "$place"
exec 9> "$place/lock"
flock 9 # a second build waits, and then finds everything done

mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64
# cortex-a72 throughout: `max`, the default, computes some int8 products wrongly in qemu 7.2.
export QEMU_CPU=cortex-a72

if ! done_already system; then
    rm -rf "$root"
    packages=python3,python3-venv,openssh-server
    debootstrap --arch=arm64 --foreign --variant=minbase --include=$packages bookworm "$root" > "$place/system.log" 2>&1 ||
        fail "debootstrap failed: see $place/system.log"
    # A folder that a crash can only cost a rebuild needs no fsync after every file.
    mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
    echo force-unsafe-io > "$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
    chroot "$root" /debootstrap/debootstrap --second-stage >> "$place/system.log" 2>&1 ||
        fail "the second stage failed: see $place/system.log"
    rm -rf "$root"/var/cache/apt/archives/*.deb
    finished system
fi

# Downloaded by the machine's own pip, installed without a network.
install() {
    wheels=$root/wheels
    mkdir -p "$wheels"
    "$python" -m pip download -q --disable-pip-version-check --only-binary=:all: --python-version 3.11 --implementation cp \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        --platform manylinux_2_17_aarch64 -c "$constraints" -d "$wheels" "$@"
    chroot "$root" /opt/edgeav/bin/pip install -q --disable-pip-version-check --no-index --find-links /wheels "$@"
    rm -rf "$wheels"
}

if ! done_already python; then
    chroot "$root" /usr/bin/python3 -m venv --clear /opt/edgeav
    install numpy onnxruntime
    finished python
fi

if ! done_already video; then # for the captions of devices/raspberry-pi
    install av opencv-python-headless
    finished video
fi

# Another count-instructions.c is another program: it is compiled whenever it is newer.
counter=$root/opt/count
if [ ! -e "$counter/libcount.so" ] || [ "$here/count-instructions.c" -nt "$counter/libcount.so" ]; then
    # A qemu that takes plugins is linked dynamically: it comes with its libraries, x86-64 in an arm64 system.
    mkdir -p "$counter/lib"
    cp -L "$(command -v qemu-aarch64)" "$counter/qemu"
    ldd "$counter/qemu" | awk '$3 ~ /^\// { print $3 } $1 ~ /^\/.*ld-/ { print $1 }' | while read -r library; do
        cp -L "$library" "$counter/lib/"
    done
    mv "$counter"/lib/ld-*.so* "$counter/loader"
    cat > "$counter/count" << 'END'
#!/bin/sh
# count OUT COMMAND...: runs COMMAND, and writes the number of its instructions to OUT.
out=$1 program=$(command -v "$2")
shift 2
exec /opt/count/loader --library-path /opt/count/lib /opt/count/qemu -plugin "/opt/count/libcount.so,out=$out" \
    "$program" "$@"
END
    chmod 755 "$counter/count"
    cc -O2 -shared -fPIC -o "$counter/libcount.so" "$here/count-instructions.c"
    finished counter
fi

if ! done_already keys; then
    ssh-keygen -q -t ed25519 -N "" -f "$place/key" -C emulated-pi <&-
    ssh-keygen -q -t ed25519 -N "" -f "$root/etc/ssh/emulated_pi_host_key" -C emulated-pi <&-
    mkdir -p "$root/root/.ssh" "$root/run/sshd" "$root/sys" "$root/proc"
    cp "$place/key.pub" "$root/root/.ssh/authorized_keys"
    chmod 700 "$root/root" "$root/root/.ssh"
    chmod 600 "$root/root/.ssh/authorized_keys"
    for port in 22204 22205; do
        echo "[127.0.0.1]:$port $(cut -d' ' -f1,2 "$root/etc/ssh/emulated_pi_host_key.pub")"
    done > "$place/known_hosts"
    finished keys
fi
cksum < "$0" > "$place/ready" # serve.sh refuses what an older build.sh left: something may be missing there
say "ready in $root"
