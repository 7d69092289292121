"""The number grids: what a format makes of a tensor, in float, with a gradient that passes straight through.

- 8-bit integers: activations unsigned with a zero point, weights symmetric with one scale per output channel (Jacob et
  al. 2018, https://arxiv.org/abs/1712.05877). These are the grids of our exports for every engine.
- Integer weights alone, in 4 bits with one scale for GROUP neighbours of a row: activations stay as they are.
- FP8, 1 sign bit and 4 + 3 or 5 + 2 of exponent and mantissa (Micikevicius et al. 2022,
  https://arxiv.org/abs/2209.05433): the largest magnitude goes to the format's largest number, the rest is a cast.
- The gradient of rounding is taken as 1 inside of the range and 0 outside (Bengio et al. 2013,
  https://arxiv.org/abs/1308.3432).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeav.quant.plan import CALIBRATED, Format

U8_MAX = 255  # activations: 0..255, the zero point among them
S8_MAX = 127  # weights: -127..127, so that a sign costs nothing
S4_MAX = 7
GROUP = 32  # weights with one scale in 4 bits
SMALLEST_SCALE = float(torch.finfo(torch.float32).tiny)

WEIGHTS_ONLY: tuple[Format, ...] = ("int8-weights", "int4-weights")
FP8_TYPES: dict[Format, torch.dtype] = {"fp8-e4m3": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2}
HALVES: dict[Format, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


def quantizes_here(number_format: Format, layer: nn.Module) -> bool:
    """Whether the format says anything of such a layer: those without static ranges are for linear layers alone,
    because no engine here has fast convolutions in them."""
    everywhere = number_format in (*CALIBRATED, *HALVES)
    return number_format != "fp32" and (everywhere or isinstance(layer, nn.Linear))


def round_weight(weight: Tensor, number_format: Format) -> Tensor:
    """(C, …) -> the same on the format's grid; the scales follow the weights and have no gradient of their own."""
    if number_format in ("int8", "int8-dynamic", "int8-weights"):
        return _symmetric(weight, S8_MAX)
    if number_format == "int4-weights":
        return _grouped(weight, S4_MAX)
    if number_format in FP8_TYPES:
        return round_fp8(weight, number_format, fp8_scale(_channel_peaks(weight), number_format))
    return round_half(weight, number_format)


def weight_scales(weight: Tensor) -> Tensor:
    """(C, …) -> (C,): the int8 scale of each output channel, as ONNX Runtime, NNCF and PT2E choose it too."""
    return (_channel_peaks(weight).flatten() / S8_MAX).clamp(min=SMALLEST_SCALE)


def round_u8(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`x` on the 256 numbers from `low` to `high`; gradients reach the two ends as well.

    The kernel is PyTorch's for learned steps (LSQ: Esser et al. 2020, https://arxiv.org/abs/1902.08153; with a zero
    point: Bhalgat et al. 2020, https://arxiv.org/abs/2004.09576), and so is the size of the gradient.
    """
    scale = step_u8(low, high)
    size = 1.0 / (x.numel() * U8_MAX) ** 0.5
    zero = (-low / scale).reshape(1)
    round_learnably = torch._fake_quantize_learnable_per_tensor_affine  # pyright: ignore[reportPrivateImportUsage]
    return round_learnably(x.float(), scale.reshape(1), zero, 0, U8_MAX, size)


def step_u8(low: Tensor, high: Tensor) -> Tensor:
    """The distance of two neighbours; 1 for an activation that is always zero, as ONNX Runtime has it."""
    step = (high - low) / U8_MAX
    return torch.where(step < SMALLEST_SCALE, torch.ones_like(step), step)


def round_dynamic(x: Tensor) -> Tensor:
    """Each tensor on the 256 numbers from its own smallest to its own largest, zero among them."""
    zero = x.new_zeros(())
    return round_u8(x, torch.minimum(x.detach().amin(), zero), torch.maximum(x.detach().amax(), zero))


def fp8_scale(peak: Tensor, number_format: Format) -> Tensor:
    """What to divide by, so that `peak` becomes the largest number of the format."""
    return (peak / torch.finfo(FP8_TYPES[number_format]).max).clamp(min=SMALLEST_SCALE)


def round_fp8(x: Tensor, number_format: Format, scale: Tensor) -> Tensor:
    """`x` through a real cast to 8 bits and back; beyond the largest number it saturates, as engines do."""
    kind = FP8_TYPES[number_format]
    largest = torch.finfo(kind).max
    scaled = (x.float() / scale).clamp(-largest, largest)  # no gradient beyond the ends
    return (scaled + (scaled.to(kind).float() - scaled).detach()) * scale


def round_half(x: Tensor, number_format: Format) -> Tensor:
    """`x` through a cast to 16 bits and back."""
    return x + (x.to(HALVES[number_format]).to(x.dtype) - x).detach()


def _channel_peaks(weight: Tensor) -> Tensor:
    """(C, …) -> (C, 1, …): the largest magnitude of each output channel."""
    return weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)


def _symmetric(rows: Tensor, largest: int) -> Tensor:
    """(C, …) -> the same on -largest..largest times a scale for each of the C."""
    scales = (_channel_peaks(rows).flatten() / largest).clamp(min=SMALLEST_SCALE)
    zeros = torch.zeros(len(rows), dtype=torch.int32, device=rows.device)
    return torch.fake_quantize_per_channel_affine(rows.float(), scales.float(), zeros, 0, -largest, largest)


def _grouped(weight: Tensor, largest: int) -> Tensor:
    """(C, I) -> the same, rounded in groups of GROUP neighbours; the last group of a row may be shorter."""
    missing = -weight.shape[1] % GROUP
    padded = nn.functional.pad(weight, (0, missing))
    rounded = _symmetric(padded.reshape(-1, GROUP), largest)
    return rounded.reshape(padded.shape)[:, : weight.shape[1]]
