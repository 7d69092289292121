"""The three CPU runtimes behind one call: audio, video, presence -> log_probs.

Each runs the bundle exactly as it was exported. A runtime that is not installed is an error with the
command to type, never a reason to try another one; and none is imported before a bundle asks for it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from edgeav.errors import EdgeavError, needs
from edgeav.runtime.bundle import Bundle
from edgeav.runtime.features import Array, Inputs


class Engine(Protocol):
    """A loaded model."""

    name: str
    version: str

    def run(self, audio: Array, video: Array, presence: Array) -> Array:
        """The fields of `Inputs`, float32 -> (1, N, V) float32, memory of its own. Fed is what the bundle declares."""
        ...


def open_engine(bundle: Bundle, threads: int = 1) -> Engine:
    """Load the bundle's model in the engine it was exported for.

    Raises EdgeavError if that runtime is not installed or refuses the file.
    """
    if not find_spec(bundle.engine):  # the packages are called what the engines are called
        raise needs(bundle.engine, bundle.engine)
    try:
        match bundle.engine:
            case "onnxruntime":
                return OnnxRuntime(bundle, threads)
            case "openvino":
                return OpenVino(bundle, threads)
            case "executorch":
                return ExecuTorch(bundle, threads)
            case other:
                raise EdgeavError(f"{bundle.folder}: unknown engine {other!r}")
    except EdgeavError:
        raise
    except Exception as error:  # the three runtimes' exceptions share no other base
        raise _refused(bundle, error) from error


class OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: its warnings are about its own memory plan
        self.version, self._names = onnxruntime.__version__, bundle.input_names
        self._session = onnxruntime.InferenceSession(
            str(bundle.model_path), options, providers=["CPUExecutionProvider"]
        )

    def run(self, audio: Array, video: Array, presence: Array) -> Array:
        feed = Inputs(audio, video, presence).named(self._names)
        return np.array(self._session.run(["log_probs"], feed)[0], dtype=np.float32)


class OpenVino:
    name = "openvino"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import openvino

        core = openvino.Core()
        self.version, self._names = openvino.get_version().split("-")[0], bundle.input_names
        settings = openvino_settings(bundle.precision, threads)
        compiled = core.compile_model(str(bundle.model_path), "CPU", settings)
        wanted = settings["INFERENCE_PRECISION_HINT"]
        if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != wanted:
            raise EdgeavError(f"{bundle.folder} computes in {wanted}, which this CPU has not; take another precision")
        self._request = compiled.create_infer_request()

    def run(self, audio: Array, video: Array, presence: Array) -> Array:
        result = self._request.infer(Inputs(audio, video, presence).named(self._names))
        return np.array(result["log_probs"], dtype=np.float32)  # a copy: the next call reuses it


def openvino_settings(precision: str, threads: int) -> dict[str, Any]:
    """How OpenVINO must open a bundle of this precision, to compute as its plan says.

    It would choose two things by the machine, unasked: f32 or bf16 for what is not int8, and whether what meets small
    weights is rounded to 8 bits as well.
    """
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32" if precision == "int8-dynamic" else "0",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }


class ExecuTorch:
    """XNNPACK through ExecuTorch's Python runtime, which takes torch tensors; the C++ runner does not."""

    name = "executorch"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        from executorch.runtime import Runtime  # isort: skip  (kernels imported first: error 0x14)
        import executorch.kernels.quantized  # noqa: F401  registers the quantized operators
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

        _unsafe_reset_threadpool(threads)  # "unsafe" while a model runs; none does yet
        self.version, self._names = _installed_version("executorch"), bundle.input_names
        self._program = Runtime.get().load_program(bundle.model_path)  # keep it: the method points into it
        self._forward: Any = self._program.load_method("forward")

    def run(self, audio: Array, video: Array, presence: Array) -> Array:
        import torch

        feed = Inputs(audio, video, presence).named(self._names)
        arrays = [np.ascontiguousarray(array, dtype=np.float32) for array in feed.values()]
        (log_probs,) = self._forward.execute([torch.from_numpy(array) for array in arrays])
        return np.array(log_probs.numpy(), dtype=np.float32)


def _installed_version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _refused(bundle: Bundle, error: Exception) -> EdgeavError:
    made_with = ", ".join(f"{key} {value}" for key, value in bundle.exported.items())
    return EdgeavError(
        f"{bundle.engine} {_installed_version(bundle.engine)} cannot load {bundle.model_path}: {error}\n"
        f"The bundle was made with {made_with or 'unknown versions'}: install those, or export again."
    )
