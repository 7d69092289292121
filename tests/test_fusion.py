"""Fusions: what each computes, and that nothing depends on what is absent."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FUSION, model_config, padded
from torch import Tensor, nn

from edgeav.models import AVModel, noise, random_model
from edgeav.models import config as c
from edgeav.models.fusion import ConcatMlp, CrossAttention, NearAttention, Sum, fusion

WIDTH, STEPS = 16, 7


def model(name: str, **changes: object) -> AVModel:
    config = model_config("dw-striding", "linear", name).model_copy(update=changes)
    made = random_model(config=config)
    if isinstance(made.fusion, CrossAttention):  # as if trained
        nn.init.constant_(made.fusion.attention_gate, 0.7)
        nn.init.constant_(made.fusion.feed_forward_gate, -0.4)
    return made


def cross_attention(gates: tuple[float, float] = (0.7, -0.4)) -> CrossAttention:
    torch.manual_seed(0)
    made = fusion(model_config("dw-striding", "linear", "cross-attention"))
    assert isinstance(made, CrossAttention)
    nn.init.constant_(made.attention_gate, gates[0])
    nn.init.constant_(made.feed_forward_gate, gates[1])
    return made.eval()


def streams(rows: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(rows, STEPS, WIDTH), torch.randn(rows, STEPS, WIDTH), torch.ones(rows, STEPS, 2)


@pytest.mark.parametrize("missing", ["learned", "zeros"])
@pytest.mark.parametrize("present", [(1, 1), (1, 0), (0, 1), (0, 0)])
@pytest.mark.parametrize("name", FUSION)
def test_whatever_is_missing_the_output_is_finite_and_does_not_depend_on_it(
    name: str, present: tuple[int, int], missing: str
) -> None:
    net = model(name, missing=missing)
    sound, lips, presence = noise(net.config, steps=6)
    other_sound, other_lips, _ = noise(net.config, steps=6)
    presence = presence * torch.tensor(present)
    with torch.inference_mode():
        out = net(sound, lips, presence)
        other = net(sound if present[0] else other_sound, lips if present[1] else other_lips, presence)
    assert out.isfinite().all()
    torch.testing.assert_close(other, out, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FUSION)
def test_every_row_of_a_padded_batch_equals_the_row_run_alone(name: str) -> None:
    net = model(name)
    rows = [[part[0] for part in noise(net.config, steps)] for steps in (4, 9, 6)]
    rows[1][2][:, 1], rows[2][2][2:4, 1] = 0, 0  # sound alone; lips with a gap
    with torch.inference_mode():
        together = net(*(padded(list(parts)) for parts in zip(*rows, strict=True)))
        for row, out in zip(rows, together, strict=True):
            alone = net(*(part[None] for part in row))[0]
            torch.testing.assert_close(out[: len(alone)], alone, atol=1e-5, rtol=0)


def test_the_concat_mlp_is_linear_norm_relu_linear() -> None:
    mlp = ConcatMlp(c.ConcatMlp(hidden=8, norm=True), WIDTH).eval()
    assert mlp.norm is not None
    nn.init.normal_(mlp.norm.weight)
    mlp.norm.running_mean, mlp.norm.running_var = torch.randn(8), torch.rand(8) + 0.5
    sound, lips, presence = streams()
    x = torch.cat([sound, lips], -1) @ mlp.up.weight.T + mlp.up.bias
    x = (x - mlp.norm.running_mean) / (mlp.norm.running_var + 1e-5).sqrt() * mlp.norm.weight + mlp.norm.bias
    expected = x.clamp(min=0) @ mlp.down.weight.T + mlp.down.bias
    torch.testing.assert_close(mlp(sound, lips, presence), expected, atol=1e-5, rtol=1e-5)


def test_padding_does_not_enter_the_statistics_of_the_batch_norm() -> None:
    whole, cut = (ConcatMlp(c.ConcatMlp(hidden=8, norm=True), WIDTH).train() for _ in range(2))
    cut.load_state_dict(whole.state_dict())
    sound, lips, presence = streams(rows=1)
    presence[:, 5:] = 0
    with_padding = whole(sound, lips, presence)[:, :5]
    torch.testing.assert_close(with_padding, cut(sound[:, :5], lips[:, :5], presence[:, :5]))
    assert whole.norm is not None
    assert cut.norm is not None
    torch.testing.assert_close(whole.norm.running_var, cut.norm.running_var)


def test_a_sum_with_zeros_for_what_is_missing_is_the_other_stream() -> None:
    net = model("sum", missing="zeros")
    assert isinstance(net.fusion, Sum)
    audio, video, presence = noise(net.config, STEPS)
    with torch.inference_mode():
        sound, lips = net.streams(audio, video, presence)
        assert sound is not None
        assert lips is not None
        torch.testing.assert_close(net.trunk(sound, lips, presence * torch.tensor([1, 0]))[0], sound)
        torch.testing.assert_close(net.trunk(sound, lips, presence * torch.tensor([0, 1]))[0], lips)


def test_untrained_cross_attention_is_exactly_the_audio_model() -> None:
    both = random_model(config=model_config("dw-striding", "linear", "cross-attention"))
    alone = AVModel(model_config("dw-striding")).eval()
    alone.load_state_dict({name: both.state_dict()[name] for name in alone.state_dict()})
    audio, video, presence = noise(both.config, STEPS)
    with torch.inference_mode():
        assert torch.equal(both(audio, video, presence), alone(audio, video, presence))


def test_cross_attention_passes_sound_on_unchanged_where_a_row_has_no_lips_at_all() -> None:
    sound, lips, presence = streams()
    presence[0, :, 1] = 0
    with torch.inference_mode():
        fused = cross_attention()(sound, lips, presence)
    assert torch.equal(fused[0], sound[0])
    assert not torch.allclose(fused[1], sound[1], atol=1e-2)


def test_cross_attention_lets_lips_through_step_by_step_when_one_vector_stands_for_all_sound() -> None:
    net, (_, lips, presence) = cross_attention(), streams(rows=1)
    same = torch.randn(WIDTH).expand(1, STEPS, WIDTH)
    with torch.inference_mode():
        forward, backward = net(same, lips, presence), net(same, lips.flip(1), presence)
    assert forward.std(dim=1).mean() > 0.02
    torch.testing.assert_close(backward, forward.flip(1), atol=1e-5, rtol=0)


def test_both_gates_learn_from_zero() -> None:
    net = cross_attention(gates=(0.0, 0.0))
    net(*streams()).square().sum().backward()
    assert net.attention_gate.grad is not None
    assert net.feed_forward_gate.grad is not None
    assert net.attention_gate.grad.abs() > 1e-3
    assert net.feed_forward_gate.grad.abs() > 1e-3


def test_attention_to_near_steps_equals_the_formula() -> None:
    near = cross_attention().attention
    assert isinstance(near, NearAttention)
    x, other, presence = streams(rows=1)
    presence[0, 2, 1] = 0
    q, k, v = (layer(y)[0].view(STEPS, 2, 8) for layer, y in ((near.query, x), (near.key, other), (near.value, other)))
    expected = torch.zeros(STEPS, 2, 8)
    for head, slope in enumerate((1.0, 0.5)):
        for i in range(STEPS):
            seen = [j for j in range(STEPS) if j != 2]
            scores = torch.stack([q[i, head] @ k[j, head] / 8**0.5 - slope * abs(i - j) for j in seen])
            expected[i, head] = torch.softmax(scores, 0) @ v[seen, head]
    got = near(x, other, presence[..., 1:])
    torch.testing.assert_close(got[0], near.out(expected.flatten(1)), atol=1e-5, rtol=1e-5)
