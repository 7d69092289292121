"""The runtimes behind one call: audio, video, presence -> log_probs.

Each runs the bundle exactly as it was exported. A runtime that is not installed is an error with the
command to type, never a reason to try another one; and none is imported before a bundle asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from edgeav.errors import EdgeavError, needs
from edgeav.runtime.bundle import Bundle
from edgeav.runtime.features import Array, Inputs, empty_inputs
from edgeav.runtime.onnxruntime_session import open_session

PACKAGES = {"aoti": "torch"}  # the others are called what the engines are called
EXTRAS = {"aoti": "compress"}  # the others likewise


class Engine(Protocol):
    """A loaded model."""

    name: str
    version: str

    def run(self, audio: Array, video: Array, presence: Array) -> Array:
        """The fields of `Inputs`, float32 -> (1, N, V) float32, memory of its own. Fed is what the bundle declares."""
        ...


def open_engine(bundle: Bundle, threads: int = 1) -> Engine:
    """Load the bundle's model in the engine it was exported for.

    A bundle with buckets is loaded once more for each of them, in fixed shapes.
    Raises EdgeavError if that runtime is not installed or refuses the file.
    """
    if not find_spec(package_of(bundle.engine)):
        raise needs(extra_of(bundle.engine), package_of(bundle.engine))
    try:
        match bundle.engine:
            case "onnxruntime":
                dynamic = OnnxRuntime(bundle, threads)
                return bucketed(bundle, dynamic, lambda steps: OnnxRuntime(bundle, threads, dynamic.dimensions(steps)))
            case "openvino":
                return bucketed(bundle, OpenVino(bundle, threads), lambda steps: OpenVino(bundle, threads, steps))
            case "executorch":
                return ExecuTorch(bundle, threads)
            case "aoti":
                from edgeav.runtime.aoti import Aoti

                return Aoti(bundle, threads)
            case other:
                raise EdgeavError(f"{bundle.folder}: unknown engine {other!r}")
    except EdgeavError:
        raise
    except Exception as error:  # the three runtimes' exceptions share no other base
        raise _refused(bundle, error) from error


def package_of(engine: str) -> str:
    """The Python package that runs it."""
    return PACKAGES.get(engine, engine)


def extra_of(engine: str) -> str:
    """The extra that installs it."""
    return EXTRAS.get(engine, engine)


class OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int, dimensions: Mapping[str, int] | None = None) -> None:
        """`dimensions`: sizes of the file's named sides, for fixed shapes."""
        import onnxruntime

        self.version, self._names = onnxruntime.__version__, bundle.input_names
        self._features = bundle.features
        # Where it knows the shapes, this fusion makes float Gemm of linear layers that belong into integer kernels.
        off = ["MatMulAddFusion"] if dimensions and bundle.precision != "fp32" else []
        optimized = optimizes(bundle.precision)
        self._session = open_session(
            bundle.model_path, threads, optimized=optimized, dimensions=dimensions, without=off
        )

    def dimensions(self, steps: int) -> dict[str, int]:
        """What the named sides of the inputs are for that many steps."""
        shapes = empty_inputs(self._features, steps).named(self._names)
        sides = [(value.shape, shapes[value.name].shape) for value in self._session.get_inputs()]
        return {
            name: size
            for named, sizes in sides
            for name, size in zip(named, sizes, strict=True)
            if isinstance(name, str)
        }

    def run(self, audio: Array, video: Array, presence: Array) -> Array:
        feed = Inputs(audio, video, presence).named(self._names)
        return np.array(self._session.run(["log_probs"], feed)[0], dtype=np.float32)


class OpenVino:
    name = "openvino"

    def __init__(self, bundle: Bundle, threads: int, steps: int | None = None) -> None:
        """`steps`: for inputs of exactly that length."""
        import openvino

        from edgeav.runtime.openvino_core import core, place

        where, version = place(), openvino.get_version().split("-")[0]
        self.version, self._names = version if where == "CPU" else f"{version} on {where}", bundle.input_names
        model = core().read_model(str(bundle.model_path))
        if steps is not None:
            shapes = empty_inputs(bundle.features, steps).named(self._names)
            model.reshape({name: list(array.shape) for name, array in shapes.items()})
        settings = openvino_settings(bundle.precision, threads, where)
        compiled = core().compile_model(model, where, settings)
        wanted = settings["INFERENCE_PRECISION_HINT"]
        if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != wanted:
            raise EdgeavError(
                f"{bundle.folder} computes in {wanted}, which this {where} has not; take another precision"
            )
        self._request = compiled.create_infer_request()

    def run(self, audio: Array, video: Array, presence: Array) -> Array:
        result = self._request.infer(Inputs(audio, video, presence).named(self._names))
        return np.array(result["log_probs"], dtype=np.float32)  # a copy: the next call reuses it


def optimizes(precision: str) -> bool:
    """Whether ONNX Runtime may optimize a graph of this precision: not with float8 in it.

    1.31 makes integer operators of float8 and refuses its own graph; kept from that, it computes something else.
    """
    return not precision.startswith("fp8")


def openvino_settings(precision: str, threads: int, where: str = "CPU") -> dict[str, Any]:
    """How OpenVINO must open a bundle of this precision, to compute as its plan says.

    It would choose two things by the machine, unasked: f32 or bf16 for what is not int8, and whether what meets small
    weights is rounded to 8 bits as well.
    """
    return ({"INFERENCE_NUM_THREADS": threads} if where == "CPU" else {}) | {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32" if precision == "int8-dynamic" else "0",
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


class Bucketed:
    """Fixed shapes beside the dynamic graph: an utterance is padded to the next bucket, a longer one is not."""

    def __init__(self, dynamic: Engine, fixed: Mapping[int, Engine]) -> None:
        self.name, self.version = dynamic.name, dynamic.version
        self._dynamic, self._fixed = dynamic, fixed

    def run(self, audio: Array, video: Array, presence: Array) -> Array:
        inputs = Inputs(audio, video, presence)
        bucket = fitting(inputs.steps, list(self._fixed))
        if bucket is None:
            return self._dynamic.run(*inputs)
        return self._fixed[bucket].run(*padded(inputs, bucket - inputs.steps))[:, : inputs.steps].copy()


def bucketed(bundle: Bundle, dynamic: Engine, fix: Callable[[int], Engine]) -> Engine:
    """`dynamic` itself where the bundle has no buckets."""
    return Bucketed(dynamic, {steps: fix(steps) for steps in bundle.buckets}) if bundle.buckets else dynamic


def fitting(steps: int, buckets: Sequence[int]) -> int | None:
    """The smallest bucket of at least `steps`; None: the utterance is longer than all of them."""
    return min((bucket for bucket in buckets if bucket >= steps), default=None)


def padded(inputs: Inputs, steps: int) -> Inputs:
    """The same utterance with `steps` empty steps behind it, which its output does not notice."""
    more = [steps * (array.shape[1] // inputs.steps) for array in inputs]  # frames of each in that many steps
    sides = [((0, 0), (0, count), *((0, 0),) * (array.ndim - 2)) for array, count in zip(inputs, more, strict=True)]
    return Inputs(*(np.pad(array, side) for array, side in zip(inputs, sides, strict=True)))


def _installed_version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _refused(bundle: Bundle, error: Exception) -> EdgeavError:
    made_with = ", ".join(f"{key} {value}" for key, value in bundle.exported.items())
    return EdgeavError(
        f"{bundle.engine} {_installed_version(package_of(bundle.engine))} cannot load {bundle.model_path}: {error}\n"
        f"The bundle was made with {made_with or 'unknown versions'}: install those, or export again."
    )
