"""Put beside the page what is not in the repository: ONNX Runtime Web, the face cascade, and bundles.

    python devices/web/install.py --bundle runs/int8/bundles/onnxruntime-int8

Runs with Python 3.11 alone. ONNX Runtime Web comes from npm (`npm pack`: nothing of it is executed), the cascade from
the OpenCV that is installed for this Python. Both are compared with the sha256 written here: a page that hashes its
model should know its engine too.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGE = "onnxruntime-web@1.30.0"
PACKAGE_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
RUNTIME = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
CASCADE = "haarcascade_frontalface_alt2.xml"  # the one of edgeav/runtime/face.py
CASCADE_SHA256 = "7b0c967d9abbdfbde025eb9c786947d151b6426040d07a8f9562ed8fd90724b4"


class InstallError(Exception):
    """What is missing or wrong, and what to do."""


def install(vendor: Path) -> None:
    """Fill the folder `vendor`; what is already there and right is left alone."""
    vendor.mkdir(parents=True, exist_ok=True)
    if not all(_is(vendor / name, digest) for name, digest in RUNTIME.items()):
        archive = _checked(_packed(PACKAGE), PACKAGE_SHA256, PACKAGE)
        for name, content in _unpacked(archive).items():
            _write(vendor / name, _checked(content, RUNTIME[name], name))
    xml = _checked(_cascade_file().read_bytes(), CASCADE_SHA256, CASCADE)
    _write(vendor / "face.json", json.dumps(read_cascade(xml), separators=(",", ":")).encode())


def add_bundles(folders: list[Path], target: Path) -> list[dict[str, Any]]:
    """Copy bundles below `target` and list all that are there in list.json, the page's model picker."""
    for folder in folders:
        if not (folder / "bundle.json").is_file():
            raise InstallError(
                f"{folder} has no bundle.json: not a bundle. Make one: edgeav export MODEL --target onnxruntime"
            )
        engine = json.loads((folder / "bundle.json").read_text("utf-8")).get("engine")
        if engine != "onnxruntime":
            raise InstallError(f"{folder} is for {engine}; a browser runs bundles for onnxruntime")
        shutil.rmtree(target / folder.resolve().name, ignore_errors=True)
        shutil.copytree(folder, target / folder.resolve().name)
    found = [_entry(path.parent) for path in sorted(target.glob("*/bundle.json"))]
    if found:
        _write(target / "list.json", (json.dumps(found, indent=1) + "\n").encode())
    return found


def read_cascade(xml: bytes) -> dict[str, Any]:
    """OpenCV's cascade file -> {window, stages: [{threshold, trees: [{nodes, leaves}]}], features}, and its license."""
    root = ElementTree.fromstring(xml).find("cascade")
    if root is None:
        raise InstallError(f"{CASCADE} holds no cascade")
    return {
        "license": xml.decode().partition("<!--")[2].partition("-->")[0].strip(),
        "window": int(root.findtext("width", "")),
        "stages": [_stage(stage) for stage in root.iterfind("stages/_")],
        "features": [
            [_numbers(rect) for rect in feature.iterfind("rects/_")] for feature in root.iterfind("features/_")
        ],
    }


def _stage(stage: ElementTree.Element) -> dict[str, Any]:
    trees = [
        {"nodes": _fours(_numbers(tree.find("internalNodes"))), "leaves": _numbers(tree.find("leafValues"))}
        for tree in stage.iterfind("weakClassifiers/_")
    ]
    return {"threshold": float(stage.findtext("stageThreshold", "")), "trees": trees}


def _numbers(element: ElementTree.Element | None) -> list[float]:
    values = [float(text) for text in (element.text or "").split()] if element is not None else []
    return [int(value) if value.is_integer() else value for value in values]


def _fours(values: list[float]) -> list[list[float]]:
    return [values[i : i + 4] for i in range(0, len(values), 4)]


def _entry(folder: Path) -> dict[str, Any]:
    spec = json.loads((folder / "bundle.json").read_text("utf-8"))
    megabytes = round(spec["files"][spec["model"]]["bytes"] / 1e6, 1)
    return {"folder": folder.name, "name": spec["name"], "precision": spec["precision"], "mb": megabytes}


def _packed(package: str) -> bytes:
    npm = shutil.which("npm")
    if npm is None:
        raise InstallError("npm is not installed; it fetches ONNX Runtime Web. Debian: apt install npm")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", package, "--silent", "--ignore-scripts", "--pack-destination", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            raise InstallError(f"npm pack {package} failed: {done.stderr.strip()[-500:]}")
        return archives[0].read_bytes()


def _unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        members = {name: tar.extractfile(f"package/dist/{name}") for name in RUNTIME}
        return {name: member.read() for name, member in members.items() if member}


def _cascade_file() -> Path:
    found = importlib.util.find_spec("cv2")
    path = Path(found.origin).parent / "data" / CASCADE if found and found.origin else None
    if path is None or not path.is_file():
        raise InstallError(
            f"OpenCV with {CASCADE} is not installed for {sys.executable}. Type:\n"
            f"  {sys.executable} -m pip install 'opencv-python-headless<5'"
        )
    return path


def _checked(content: bytes, digest: str, what: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise InstallError(f"{what}: sha256 is {found}, expected {digest}. It is not used.")
    return content


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, nargs="+", default=[], help="folders to offer in the model picker")
    args = parser.parse_args(arguments)
    try:
        install(HERE / "vendor")
        found = add_bundles(args.bundle, HERE / "bundles")
    except InstallError as error:
        print(error, file=sys.stderr)
        return 2
    print("models:", ", ".join(entry["folder"] for entry in found) or "none yet; add one with --bundle")
    print(f"now: python {HERE / 'serve.py'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
