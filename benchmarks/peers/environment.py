"""Each peer in an environment of its own, so that nobody's pins hold anybody else back; and how it is run there.

An environment is made with pip from pinned lines, once; `--python NAME=PATH` names one that is there already.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeav.errors import EdgeavError
from edgeav.run import write_json

SCRIPT = Path(__file__).with_name("defaults.py")
OUTCOME = "outcome.json"
PINS = "edgeav-pins.txt"  # in an environment that is complete: what it was made from
INSTALL_S, QUANTIZE_S = 3600, 3600
TORCH = "torch==2.13.0"  # Olive and Optimum want one; from PyPI it brings CUDA along
RUNTIME = ("onnxruntime==1.31.1", "onnx==1.23.2")
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "onnxruntime": RUNTIME,
    "olive": ("olive-ai==0.13.0", *RUNTIME, "requests", TORCH),  # it does not start without requests
    "optimum": ("optimum-onnx==0.1.0", *RUNTIME, TORCH),
    "nncf": ("nncf==3.4.0", "openvino==2026.4.1", *RUNTIME),
    "optimum-intel": ("optimum-intel==2.2.0", "nncf==3.4.0", "openvino==2026.4.1", TORCH),
}
# What pip finds may be for another build of torch: transformers fails on it, and does without where it is absent.
WITHOUT_TORCHVISION = ("optimum-intel",)


@dataclass(frozen=True)
class Peer:
    """A way to int8 that somebody else ships; `method` is its name in defaults.py."""

    method: str
    says: str
    environment: str
    engine: Literal["onnxruntime", "openvino"]


PEERS = (
    Peer("onnxruntime-dynamic", "ORT quantize_dynamic", "onnxruntime", "onnxruntime"),
    Peer("onnxruntime-static", "ORT quantize_static", "onnxruntime", "onnxruntime"),
    Peer("olive-dynamic", "Olive OnnxDynamicQuantization", "olive", "onnxruntime"),
    Peer("olive-static", "Olive OnnxStaticQuantization", "olive", "onnxruntime"),
    Peer("optimum-dynamic", "Optimum avx512_vnni, dynamic", "optimum", "onnxruntime"),
    Peer("optimum-static", "Optimum avx512_vnni, static", "optimum", "onnxruntime"),
    Peer("nncf-onnx", "nncf.quantize of the ONNX file", "nncf", "onnxruntime"),
    Peer("nncf-openvino", "nncf.quantize", "nncf", "openvino"),
    Peer("optimum-intel", "Optimum Intel OVQuantizer", "optimum-intel", "openvino"),
)


class Failed(EdgeavError):
    """A command of a peer's that did not work: its last line."""


def python_of(name: str, folder: Path, named: Mapping[str, str]) -> str:
    """The Python of an environment, which is made in `folder` unless it is there or one was named. May fail."""
    if name in named:
        return named[name]
    place, lines = folder / name, ENVIRONMENTS[name]
    python, stamp = place / "bin" / "python", place / PINS
    if not stamp.exists() or stamp.read_text().split() != list(lines):
        if not python.exists():
            said([sys.executable, "-m", "venv", str(place)], INSTALL_S)
        said([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *lines], INSTALL_S)
        if name in WITHOUT_TORCHVISION:
            said([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"], INSTALL_S)
        stamp.write_text("\n".join(lines) + "\n")
    return str(python)


def quantize(peer: Peer, python: str, given: tuple[Path, Path], out: Path) -> None:
    """Let a peer quantize `given` (an ONNX file, a folder of clips): its model and outcome.json in `out`."""
    error = None
    try:
        said([python, str(SCRIPT), peer.method, *map(str, given), str(out)], QUANTIZE_S)
        if not list(out.glob("model.*")):
            raise Failed("it ended without an error and without a model")
    except Failed as failed:
        error = str(failed)
    record(out, error)


def record(out: Path, error: str | None) -> None:
    """outcome.json: the error is the last line of what a peer said when it failed, None when it did not."""
    there = out / "versions.json"
    found = json.loads(there.read_text()) if there.exists() else {}
    write_json(out / OUTCOME, {"error": error, "versions": found})


def said(command: Sequence[str], limit_s: float) -> str:
    """What a command printed; Failed with its last line when it breaks or takes too long.

    Alone: without this process's modules, on one thread, and without a network for what would look on the Hub.
    """
    alone = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    alone |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=limit_s, env=alone)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {limit_s:g} s") from None
    if done.returncode:
        raise Failed(last_line(done.stderr) or last_line(done.stdout) or f"exit code {done.returncode}")
    return done.stdout


def last_line(text: str) -> str:
    """The last line with something in it, which in a traceback is the error; without the folders of this machine."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"(/[\w.+-]+)+/", "…/", lines[-1])[:300] if lines else ""
