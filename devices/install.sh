#!/bin/sh
# What the tests of devices need beside .venv, on Debian, as root. What is there already is not installed again.
#
#   sh devices/install.sh tools    a browser, node, a JDK with JUnit and Kotlin, an SSH server, compilers and QEMU for arm64
#   sh devices/install.sh adb      the tools, then the emulated debug bridge: half a minute and 250 MB
#   sh devices/install.sh pi       the tools, then the emulated Raspberry Pis: six minutes and 900 MB
#
# Nothing of it is needed to compress a model. A test that misses some of it is skipped and says what. PYTHON: whose pip
# downloads the Pis' wheels, and whose OpenCV lends the page its face cascade (default .venv/bin/python).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export PYTHON="${PYTHON:-$here/../.venv/bin/python}" DEBIAN_FRONTEND=noninteractive
missing=

want() { [ -e "$1" ] || command -v "$1" > /dev/null || missing="$missing $2"; } # a program or a file, its package

tools() {
    want node nodejs
    want npm npm
    want chromium chromium
    want javac default-jdk-headless
    want /usr/share/java/junit4.jar junit4
    want aapt2 aapt
    want /usr/share/android-framework-res/framework-res.apk android-framework-res
    want /usr/sbin/sshd openssh-server
    want ssh openssh-client
    want adb adb
    want debootstrap debootstrap
    want qemu-aarch64-static qemu-user-static
    want qemu-aarch64 qemu-user
    want update-binfmts binfmt-support
    want cc gcc
    want aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
    if [ -n "$missing" ]; then
        [ "$(id -u)" = 0 ] || { echo "install.sh: needs root to install$missing" >&2; exit 1; }
        apt-get -qq update
        # shellcheck disable=SC2086  # a list
        apt-get -qq -y install --no-install-recommends $missing
    fi
    bash "$here/android/check.sh" tools
    "$PYTHON" "$here/web/install.py"
}

case ${1:-} in
tools) tools ;;
adb) tools && sh "$here/emulated-adb/build.sh" ;;
pi) tools && sh "$here/emulated-pi/build.sh" ;;
*) echo "usage: install.sh tools | adb | pi" >&2; exit 2 ;;
esac
