#!/usr/bin/env bash
# Put what the app needs beside its code into app/src/main/assets: a bundle, and the face cascade that OpenCV ships.
#
#   devices/android/assets.sh runs/int8/bundles/onnxruntime-int8
#
# PYTHON: an interpreter with edgeav and OpenCV (default: .venv/bin/python of the repository, else python3).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bundle=${1:?usage: assets.sh BUNDLE}
python=${PYTHON:-$here/../../.venv/bin/python}
[ -x "$python" ] || python=python3
assets=${EDGEAV_ANDROID_ASSETS:-$here/app/src/main/assets}

# A bundle that is damaged or that no engine of the app can run is refused here, not on the phone.
"$python" - "$bundle" <<'PY'
import sys
from edgeav.errors import EdgeavError
from edgeav.runtime.bundle import read_bundle
try:
    bundle = read_bundle(sys.argv[1])
except EdgeavError as error:
    sys.exit(str(error))
if bundle.engine not in ("onnxruntime", "executorch"):
    sys.exit(f"{sys.argv[1]} needs {bundle.engine}; the app has onnxruntime and executorch. Export for one of them.")
PY
cascade=$("$python" -c 'import cv2, os; print(os.path.join(cv2.data.haarcascades, "haarcascade_frontalface_alt2.xml"))')

rm -rf "$assets"
mkdir -p "$assets"
cp -R -- "$bundle" "$assets/bundle"
cp -- "$cascade" "$assets/face.xml"
echo "$assets: $(du -sh "$assets" | cut -f1)"
