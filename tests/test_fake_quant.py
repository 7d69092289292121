"""Simulated formats: on the grids that engines have, shared where engines share a tensor, equal to formulas."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from tiny_av import calibration, clip, tiny_model
from tiny_models import model_config

from edgeav.errors import EdgeavError
from edgeav.exporters.parity import eager_log_probs
from edgeav.exporters.rewrites import deployable
from edgeav.models import random_model
from edgeav.quant.activations import Activation
from edgeav.quant.fake_quant import formats_of, simulate, simulate_formats
from edgeav.quant.flow import flow_of
from edgeav.quant.grids import fp8_scale, round_dynamic, round_fp8, round_u8, round_weight, weight_scales
from edgeav.quant.plan import FORMATS, Format, Plan

SHORT = [clip(steps, seed=steps) for steps in range(2, 12)]


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_an_activation_is_rounded_to_the_nearest_of_256_numbers_between_its_ends() -> None:
    x, low, high = 3 * some(500), -1.3, 2.6
    step = np.float32((high - low) / 255)
    zero = np.round(-low / step)
    expected = (np.clip(np.round(x.numpy() / step) + zero, 0, 255) - zero) * step
    found = round_u8(x, torch.tensor(low), torch.tensor(high))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert float(round_u8(torch.zeros(3), torch.tensor(low), torch.tensor(high)).abs().max()) == 0


def test_gradients_pass_inside_of_the_range_and_reach_the_ends_from_outside() -> None:
    x = torch.tensor([-5.0, 0.31, 5.0], requires_grad=True)
    low, high = torch.tensor(-1.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    round_u8(x, low, high).sum().backward()
    assert x.grad is not None and high.grad is not None and low.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 0.0]
    assert float(high.grad) > 0 and float(low.grad) > 0  # a wider range moves the cut values outwards


def test_a_dynamic_range_is_that_of_the_tensor_itself() -> None:
    x = some(64)
    torch.testing.assert_close(round_dynamic(x), round_u8(x, x.amin(), x.amax()))
    assert float((round_dynamic(x) - x).abs().max()) <= float(x.amax() - x.amin()) / 255


def test_weights_are_rounded_by_output_channel_and_their_largest_stays() -> None:
    weight = some(6, 5, 3) * torch.tensor([1.0, 10, 100, 0.1, 1, 0])[:, None, None]
    scales = weight_scales(weight)
    peaks = weight.flatten(1).abs().amax(1)
    np.testing.assert_allclose(scales[:5].numpy(), peaks[:5].numpy() / 127, rtol=1e-6)
    rounded = round_weight(weight, "int8")
    steps = rounded[:5] / scales[:5, None, None]
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert bool(((rounded - weight).abs().flatten(1).amax(1) <= 0.501 * scales).all())
    torch.testing.assert_close(rounded.flatten(1).abs().amax(1), peaks)


def test_four_bit_weights_have_a_scale_for_every_32_neighbours() -> None:
    weight = some(3, 70)
    rounded = round_weight(weight, "int4-weights")
    for row in range(3):
        for first in range(0, 70, 32):
            group = weight[row, first : first + 32]
            scale = group.abs().max() / 7
            torch.testing.assert_close(rounded[row, first : first + 32], (group / scale).round() * scale)


@pytest.mark.parametrize(("name", "numbers"), [("fp8-e4m3", (8, 3, 448)), ("fp8-e5m2", (16, 2, 57344))])
def test_fp8_is_its_definition(name: Format, numbers: tuple[int, int, int]) -> None:
    """Mantissa bits below the leading one, down to the subnormals' fixed step; saturated above the largest number."""
    bias, mantissa, largest = numbers[0] - 1, numbers[1], numbers[2]
    x = torch.cat([some(400) * 10 ** some(400, seed=1), torch.tensor([0.0, 1e-9, 1e9, -1e9])])
    scale = torch.tensor(0.037)
    scaled = np.clip(x.numpy().astype(np.float64) / np.float64(scale), -largest, largest)
    exponent = np.floor(np.log2(np.maximum(np.abs(scaled), 2.0 ** (1 - bias))))
    step = 2.0 ** (exponent - mantissa)
    expected = np.round(scaled / step) * step * np.float64(scale)
    np.testing.assert_allclose(round_fp8(x, name, scale).numpy(), expected, rtol=1e-5, atol=1e-9)


def test_fp8_gives_the_largest_magnitude_the_largest_number_of_the_format() -> None:
    weight = some(4, 9)
    kinds: dict[Format, type] = {"fp8-e4m3": ml_dtypes.float8_e4m3fn, "fp8-e5m2": ml_dtypes.float8_e5m2}
    for name, kind in kinds.items():
        scale = np.abs(weight.numpy()).max(1, keepdims=True) / np.float32(ml_dtypes.finfo(kind).max)
        expected = (weight.numpy() / scale).astype(kind).astype(np.float32) * scale
        np.testing.assert_allclose(round_weight(weight, name).numpy(), expected, rtol=1e-6)
        assert float(weight.abs().max() / fp8_scale(weight.abs().max(), name)) == float(ml_dtypes.finfo(kind).max)


def test_finer_formats_drift_less_and_no_format_changes_the_model_itself() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drift = {}
    for name in FORMATS[FORMATS.index("int8-weights") :]:
        formats: dict[str, Format] = dict.fromkeys(formats_of(deployable(model), Plan()), name)
        simulated = simulate_formats(model, formats, calibration())
        pairs = [(eager_log_probs(simulated, x), eager_log_probs(model, x)) for x in SHORT[:3]]
        drift[name] = float(np.mean([np.abs(found - expected).mean() for found, expected in pairs]))
    assert 0 < drift["fp16"] < drift["bf16"] < drift["fp8-e4m3"] < drift["fp8-e5m2"]
    assert drift["int8-weights"] < drift["int4-weights"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_query_key_and_value_share_one_grid_and_a_tensor_between_two_layers_has_one() -> None:
    model = simulate(tiny_model(), Plan(), calibration())
    attention = model.blocks[0].get_submodule("attention")
    given = [attention.get_submodule(f"{name}.given") for name in ("query", "key", "value")]
    assert given[0] is given[1] is given[2]
    conv = model.get_submodule("video.convs.0.put_out")
    assert isinstance(conv, Activation) and not conv.rounds  # the next layer's input is the same tensor
    assert isinstance(depthwise := model.get_submodule("blocks.0.conv.depthwise.put_out"), Activation)
    assert depthwise.rounds


def test_what_only_moves_a_tensor_keeps_it_and_a_relu_leaves_nothing_below_zero() -> None:
    model = deployable(random_model(0, model_config("dw-striding", "conv3d-dense", "concat-mlp")))
    flow = flow_of(model, ["video.convs.2", "video.linear", "fusion.up", "fusion.down", "head"])
    assert flow.inputs["video.linear"] is flow.outputs["video.convs.2"]
    assert flow.inputs["fusion.down"] is flow.outputs["fusion.up"] and flow.inputs["fusion.down"].rectified
    assert not flow.inputs["head"].rectified


def test_a_role_in_float_is_not_rounded_and_products_of_attention_only_when_asked_for() -> None:
    model = tiny_model()
    kept = simulate(model, Plan(keep_float=("head", "attention-matmul")), calibration())
    assert torch.equal(kept.head.weight, model.head.weight)
    assert not hasattr(kept.blocks[0].get_submodule("attention"), "factors")
    rounded = simulate(model, Plan(keep_float=()), calibration())
    factors = list(rounded.blocks[0].get_submodule("attention.factors"))  # pyright: ignore[reportArgumentType]
    assert all(float(factor.high - factor.low) > 0 for factor in factors)
    assert float(factors[4].high) <= 1.0  # weights of attention
    assert not np.array_equal(eager_log_probs(rounded, SHORT[3]), eager_log_probs(kept, SHORT[3]))


def test_ranges_without_clips_are_refused() -> None:
    with pytest.raises(EdgeavError, match="need calibration clips"):
        simulate(tiny_model(), Plan(), [])
