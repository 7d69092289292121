"""For NVIDIA GPUs: one AOTInductor package (.pt2), compiled ahead of time; FP8 by torchao.

FP8 here is meant to be real: on compute capability 8.9 (Ada, Hopper and later) linear layers multiply in e4m3, weights
and activations with one scale a row, the latter's as they come, so that nothing is calibrated. Convolutions have no FP8
kernels; they stay in bf16, as does everything else. No GPU was at hand: this path has not been run yet.
https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html

The same code packages fp32 and bf16 for CPUs, which is how it is tested where there is no GPU.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeav.errors import EdgeavError
from edgeav.exporters.graph import Hears, Sees, quiet, trace_module
from edgeav.models import AVModel
from edgeav.quant.plan import Format, Plan

MODEL = "model.pt2"
FP8_CAPABILITY = (8, 9)  # Ada Lovelace
FP8_MULTIPLE = 16  # both sides of a weight, for the tensor cores
INNER: dict[Format, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8-e4m3": torch.bfloat16}


class Package(nn.Module):
    """A model that computes in `dtype` between float32 inputs and outputs, as every bundle has them."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype


class HearsAndSees(Package):
    def forward(self, first: Tensor, second: Tensor, presence: Tensor) -> Tensor:
        return self.module(first.to(self.dtype), second.to(self.dtype), presence.to(self.dtype)).float()


class One(Package):
    def forward(self, first: Tensor, presence: Tensor) -> Tensor:
        return self.module(first.to(self.dtype), presence.to(self.dtype)).float()


def write_aoti(model: AVModel, path: Path, max_steps: int, plan: Plan | None, device: str) -> set[str]:
    """Compile a deployable model for `device` ("cuda" or "cpu"), for up to `max_steps` steps; without a plan in fp32.

    Returns the layers that multiply in FP8. EdgeavError if the device is absent or too old for the format.
    """
    number_format: Format = plan.format if plan else "fp32"
    check_device(device, number_format)
    inputs = model.config.inputs
    own = copy.deepcopy(model)
    module = Hears(own) if inputs.video is None else Sees(own) if inputs.audio is None else own
    wrap = HearsAndSees if inputs.audio and inputs.video else One
    ready = wrap(module.to(device, INNER[number_format]), INNER[number_format]).eval()
    rounded = _round_fp8(own, plan) if plan and number_format == "fp8-e4m3" else set[str]()
    with quiet(), torch.no_grad():
        program = trace_module(ready, inputs, max_steps, device)
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    return rounded


def check_device(device: str, number_format: Format) -> None:
    """EdgeavError unless this machine can compile and run `number_format` on `device`."""
    if number_format not in INNER:
        raise EdgeavError(f"aoti cannot do {number_format}; it can do {', '.join(INNER)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise EdgeavError(
            "cuda-aoti: no NVIDIA GPU is visible to PyTorch here. Export on a machine that has one (a package is"
            " compiled for the GPU it is made on), or set options.device=cpu for fp32 or bf16"
        )
    if number_format != "fp8-e4m3":
        return
    if device != "cuda":
        raise EdgeavError("aoti: fp8-e4m3 needs options.device=cuda; CPUs have no FP8 kernels. On CPUs: fp32, bf16")
    found = torch.cuda.get_device_capability()
    if found < FP8_CAPABILITY:
        raise EdgeavError(
            f"cuda-aoti: {torch.cuda.get_device_name()} has compute capability {_dotted(found)}; FP8 needs"
            f" {_dotted(FP8_CAPABILITY)} (Ada, Hopper or later). This GPU can do fp32 and bf16"
        )


def fp8_layers(model: AVModel, plan: Plan) -> set[str]:
    """Paths of the linear layers that torchao makes FP8: quantized by the plan, of sizes that tensor cores take."""
    return {
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and plan.has(path, "fp8-e4m3")
        and not (module.in_features % FP8_MULTIPLE or module.out_features % FP8_MULTIPLE)
    }


def _round_fp8(model: AVModel, plan: Plan) -> set[str]:
    """Changes `model`, whose weights are bf16 on a GPU already."""
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

    layers = fp8_layers(model, plan)
    chosen = {id(model.get_submodule(path)) for path in layers}
    config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    quantize_(model, config, filter_fn=lambda module, _: id(module) in chosen)
    return layers


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(str(part) for part in capability)
