#!/bin/sh
# Install the captions on a Raspberry Pi (64-bit Raspberry Pi OS or Debian 12), in one command, from a checkout:
#
#   sh devices/raspberry-pi/install.sh BUNDLE            into ~/edgeav; then: ~/edgeav/captions
#   sh devices/raspberry-pi/install.sh BUNDLE --service  and start them with every boot (a systemd unit of this user)
#
# BUNDLE: a bundle for ONNX Runtime, made on a larger machine by `edgeav export` or `edgeav compress`. Nothing is
# downloaded later than now. PLACE: another folder than ~/edgeav. PIP: more arguments for pip (--no-index --find-links …).
set -eu
bundle=${1:?usage: install.sh BUNDLE [--service]}
place=${PLACE:-$HOME/edgeav}
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)

fail() { echo "install.sh: $*" >&2; exit 1; }
[ -f "$bundle/bundle.json" ] || fail "$bundle is no bundle: it has no bundle.json"
[ -z "${2:-}" ] || [ "$2" = --service ] || fail "$2: only --service is known"
missing=
python3 -c 'import ensurepip, venv' 2> /dev/null || missing="$missing python3-venv"
command -v arecord > /dev/null || missing="$missing alsa-utils"
if [ -n "$missing" ]; then
    as_root=$([ "$(id -u)" = 0 ] || echo sudo)
    # shellcheck disable=SC2086  # a list of packages, and perhaps no sudo
    $as_root apt-get install -y --no-install-recommends $missing
fi

[ -x "$place/bin/python" ] || python3 -m venv "$place"
# shellcheck disable=SC2086  # PIP is a list of arguments
"$place/bin/python" -m pip install -q --disable-pip-version-check ${PIP:-} -c "$checkout/constraints.txt" \
    "$checkout[onnxruntime,video]"
# Whole or not at all: what runs now keeps its files until the new ones are complete.
rm -rf "$place/app.new" "$place/bundle.new"
mkdir "$place/app.new"
cp -R "$here/captions" "$place/app.new/"
cp -R "$bundle" "$place/bundle.new"
"$place/bin/python" -m edgeav.runtime.bench "$place/bundle.new" --iterations 3 --warmup 1 --no-parts > "$place/check.json" ||
    fail "the bundle does not work here; nothing was replaced"
rm -rf "$place/app" "$place/bundle"
mv "$place/app.new" "$place/app"
mv "$place/bundle.new" "$place/bundle"
cat > "$place/captions" << END
#!/bin/sh
PYTHONPATH='$place/app' exec '$place/bin/python' -m captions --bundle '$place/bundle' "\$@"
END
chmod 755 "$place/captions"
echo "installed, the bundle is verified: $place/captions"

if [ "${2:-}" = --service ]; then
    units=$HOME/.config/systemd/user
    mkdir -p "$units"
    sed "s|PLACE|$place|g" "$here/edgeav-captions.service" > "$units/edgeav-captions.service"
    systemctl --user daemon-reload
    systemctl --user enable --now edgeav-captions
    loginctl enable-linger # it runs without anybody logged in
    echo "started; captions: journalctl --user -fu edgeav-captions"
fi
