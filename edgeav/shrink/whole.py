"""What a whole model takes on a runtime: exported as it would be deployed, one thread, 4 s of input."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from edgeav.exporters.onnx import MODEL, write_onnx
from edgeav.exporters.rewrites import deployable, onnxruntime_form
from edgeav.macs import typical_steps
from edgeav.models import AVModel, noise
from edgeav.shrink.latency import OPSET, TURNS, Runtime, least_ms, session


def whole_ms(model: AVModel, runtime: Runtime, turns: int = TURNS) -> float:
    """Milliseconds of process CPU time for 4 s, or for as much as the model takes at once."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / MODEL
        ready = deployable(model)
        write_onnx(onnxruntime_form(ready) if runtime == "onnxruntime" else ready, path, OPSET)
        graph = onnx.load(path)
    audio, video, presence = (tensor.numpy() for tensor in noise(model.config, typical_steps(model.config)))
    arrays = {"mel": audio, "samples": audio, "video": video, "presence": presence}
    return least_ms(session(graph, runtime, {name: arrays[name] for name in model.config.inputs.names}), turns)
