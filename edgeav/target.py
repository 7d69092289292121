"""What to produce for a runtime: one `export/*.yaml`, with the settings of that engine's own tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edgeav import spec
from edgeav.quant.plan import Format

EngineName = Literal["onnxruntime", "openvino", "executorch", "aoti"]
Precision = Format  # bundles are named after their plan's format; fp32 is what they are compared with


class OnnxRuntimeOptions(spec.Strict):
    """ONNX Runtime: torch.onnx export, QDQ quantization."""

    engine: Literal["onnxruntime"] = "onnxruntime"
    opset: int = Field(default=20, ge=18, le=23)
    """ONNX operator set of the exported file."""


class OpenVinoOptions(spec.Strict):
    """OpenVINO: conversion to IR, NNCF post-training quantization."""

    engine: Literal["openvino"] = "openvino"
    smooth_quant: float | None = Field(default=0.5, ge=0, le=1)
    """How much of an activation's spread moves into the weights that follow (Xiao et al. 2022); null: none."""


class ExecuTorchOptions(spec.Strict):
    """ExecuTorch: lowering to XNNPACK, PT2E quantization."""

    engine: Literal["executorch"] = "executorch"
    max_seconds: float = Field(default=16, ge=1, le=600)
    """Longest input. ExecuTorch reserves the memory for it when it loads."""


class AotiOptions(spec.Strict):
    """AOTInductor: a package compiled ahead of time, FP8 by torchao."""

    engine: Literal["aoti"] = "aoti"
    device: Literal["cuda", "cpu"] = "cuda"
    """What it is compiled for, and runs on. cpu: fp32 and bf16 only."""
    max_seconds: float = Field(default=16, ge=1, le=600)
    """Longest input."""


Options = Annotated[
    OnnxRuntimeOptions | OpenVinoOptions | ExecuTorchOptions | AotiOptions,
    Field(discriminator="engine"),
]


class Durations(spec.Strict):
    """Fixed lengths by the clock, whatever a model's steps are."""

    seconds: tuple[Annotated[float, Field(gt=0, le=600)], ...] = Field(min_length=1, strict=False)


class Target(spec.Strict):
    """One kind of artifact: the engine that runs it, and how it is lowered and quantized for that engine."""

    schema_: Literal["edgeav/1"] = Field("edgeav/1", alias="schema")
    name: str = Field(pattern=spec.NAME)
    description: str
    """One line for lists and the report."""
    engine: EngineName
    """The runtime that opens the artifact."""
    options: Options = Field(default_factory=OnnxRuntimeOptions)  # never used: see the validator below
    """Settings that only this engine has."""
    buckets: int | Annotated[tuple[int, ...], Field(strict=False)] | Durations | None = None
    """Fixed shapes beside the dynamic graph: how many (chosen for the lengths of the training clips), or which, in
    steps or {seconds: …}. Each is one more copy of the model in memory, none on disk; for onnxruntime and openvino."""

    @model_validator(mode="after")
    def _buckets_are_possible(self) -> Target:
        wanted = _lengths(self.buckets)
        if wanted and self.engine in ("executorch", "aoti"):
            raise ValueError(f"buckets: {self.engine} has one graph for all lengths; use onnxruntime or openvino")
        if any(bucket <= 0 for bucket in wanted) or len(set(wanted)) < len(wanted):
            raise ValueError(
                f"buckets: {self.buckets}: must be a number of buckets, or different numbers of steps or seconds"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _options_belong_to_the_engine(cls, data: Any) -> Any:
        """The YAML names the engine once; the options get it as their tag. Without options: the defaults."""
        if not isinstance(data, dict) or data.get("engine") not in EngineName.__args__:
            return data  # the check of `engine` reports it
        options = data.get("options") or {}
        return {
            **data,
            "options": {"engine": data["engine"], **options} if isinstance(options, dict) else options,
        }

    @classmethod
    def load(cls, name: str, overrides: Sequence[str] = ()) -> Target:
        """A shipped target by name, or one from a YAML file."""
        return spec.load(cls, spec.find("export", name), overrides)


def _lengths(buckets: int | tuple[int, ...] | Durations | None) -> tuple[float, ...]:
    match buckets:
        case None:
            return ()
        case int():
            return (buckets,)
        case Durations():
            return buckets.seconds
    return buckets
