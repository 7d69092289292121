"""What the tests of the browser page share: node asked by files, the page installed, clips of a drawn face."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

WEB = Path(__file__).parents[1] / "devices" / "web"
PROBE = Path(__file__).parent / "web_probe.mjs"
RUNTIME = WEB / "vendor" / "ort.wasm.min.mjs"


def needs_node() -> str:
    """The path of node 18 or newer; skips the test where there is none."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed (Debian: apt install nodejs); it runs the page's modules without a browser")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip().lstrip("v").split(".")[0]) < 18:
        pytest.skip(f"node {version.strip()} is too old: the page's modules need 18")
    return node


def needs_runtime() -> None:
    if not RUNTIME.is_file():
        pytest.skip("ONNX Runtime Web is not installed: python devices/web/install.py")


def ask(name: str, **question: Any) -> Any:
    """What web_probe.mjs answers."""
    text = json.dumps({"ask": name, **question}, default=str)
    done = subprocess.run(
        [needs_node(), str(PROBE)], input=text, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def raw(path: Path, array: NDArray) -> str:
    """The array's bytes in a file: how arrays reach node."""
    np.ascontiguousarray(array).tofile(path)
    return str(path)


def clip(path: Path, pictures: NDArray[np.uint8]) -> dict[str, Any]:
    """(T, H, W) pictures as node reads them."""
    count, height, width = pictures.shape
    return {"path": raw(path, pictures), "width": width, "height": height, "count": count}


def script(name: str) -> ModuleType:
    """devices/web/<name>.py, imported from where it lies."""
    spec = importlib.util.spec_from_file_location(f"web_{name}", WEB / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn_clip(index: int = 0) -> tuple[str, NDArray[np.float32], NDArray[np.uint8]]:
    """Sentence, (S,) sound and (T, 480, 640) pictures of a drawn face that speaks it and sways a little."""
    from drawn_face import draw_face

    from edgeav.data.synthetic import demo_corpus

    utterance = demo_corpus().tests[0].utterances[index]
    media = utterance.media()
    assert media.waveform is not None and media.mouth is not None
    sway = 6 * np.sin(np.arange(len(media.mouth)) / 15)
    pictures = [draw_face(mouth, x=320 + offset) for mouth, offset in zip(media.mouth, sway, strict=True)]
    return utterance.text, media.waveform, np.stack(pictures)
