"""Local attention with a global token: against explicit loops, in chunks of rows, at lengths beyond any table."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeav.models import AVModel, ModelConfig, noise
from edgeav.models.config import Block, Encoder
from edgeav.models.conformer import MASKED, LocalAttention, RelativeAttention, attention_mask, position_table
from edgeav.runtime.inputs import Features


def local(window: int, global_tokens: int) -> LocalAttention:
    torch.manual_seed(0)
    attention = LocalAttention(24, Block(heads=3, head_width=8), Encoder(window=window, global_tokens=global_tokens))
    for bias in (attention.bias_u, attention.bias_v):
        nn.init.normal_(bias)
    return attention.eval()


def by_loops(attention: LocalAttention, x: torch.Tensor, window: int, global_tokens: int, valid: int) -> torch.Tensor:
    """NeMo's definition for one utterance of which `valid` steps are real: (N, D) -> (N, D)."""
    steps = len(x)
    q, k, v = (f(x).view(steps, 3, 8) for f in (attention.query, attention.key, attention.value))
    r = attention.position(position_table(window + 1, 24)[0]).view(2 * window + 1, 3, 8)
    out = torch.zeros(steps, 3, 8)
    for head in range(3):
        u, w = attention.bias_u[head, 0], attention.bias_v[head, 0]
        for i in range(valid):
            terms = [(q[i, head] @ k[j, head], v[j, head]) for j in range(global_tokens)]
            if i < global_tokens:
                terms = [(q[i, head] @ k[j, head], v[j, head]) for j in range(valid)]
            else:
                for j in range(max(0, i - window), min(valid, i + window + 1)):
                    # row 0 of the table is distance `window`
                    score = (q[i, head] + u) @ k[j, head] + (q[i, head] + w) @ r[window - (i - j), head]
                    terms.append((score, v[j, head]))
            weights = torch.softmax(torch.stack([score for score, _ in terms]) / 8**0.5, 0)
            out[i, head] = weights @ torch.stack([value for _, value in terms])
    return attention.out(out.reshape(steps, 24))


@pytest.mark.parametrize("global_tokens", [0, 1])
@pytest.mark.parametrize(("steps", "valid"), [(2, 2), (5, 5), (23, 23), (31, 26)])  # chunks are of 12 rows
def test_it_equals_explicit_loops(steps: int, valid: int, global_tokens: int) -> None:
    attention, x = local(3, global_tokens), torch.randn(1, steps, 24)
    real = torch.zeros(1, steps, 1)
    real[:, :valid] = 1
    with torch.inference_mode():
        got = attention(x, position_table(4, 24), attention_mask(real))[0, :valid]
        torch.testing.assert_close(got, by_loops(attention, x[0], 3, global_tokens, valid)[:valid], atol=1e-5, rtol=0)


def test_a_window_that_reaches_everything_is_full_attention() -> None:
    attention, x = local(40, 0), torch.randn(2, 17, 24)
    full = RelativeAttention(24, Block(heads=3, head_width=8), Encoder())
    full.load_state_dict(attention.state_dict())
    with torch.inference_mode():
        ours = attention(x, position_table(41, 24), torch.zeros(2, 1, 1, 17))
        torch.testing.assert_close(ours, full(x, position_table(17, 24), torch.zeros(2, 1, 1, 17)), atol=1e-5, rtol=0)


def test_a_model_with_a_window_takes_any_length_and_sees_no_further() -> None:
    torch.manual_seed(1)
    encoder = Encoder(window=4, stream_norm=False)
    config = ModelConfig(
        inputs=Features(video=None), video=None, fusion=None, width=32, encoder=encoder, max_steps=8, tokens=("a",),
        blocks=(Block(heads=2, head_width=16, feed_forward=32, feed_forward_2=32, conv_channels=32, kernel=3),),
    )  # fmt: skip
    model = AVModel(config).eval()
    audio, video, presence = noise(config, steps=300)
    other = audio.clone()
    other[:, 8 * 200 :] = 0
    with torch.inference_mode():
        before, after = model(audio, video, presence)[0], model(other, video, presence)[0]
    reach = 4 + 1  # the window, and half the kernel
    assert torch.equal(before[: 200 - reach], after[: 200 - reach])
    assert not torch.allclose(before[200 - reach + 1 :], after[200 - reach + 1 :])
    assert before.isfinite().all() and MASKED < -1e3
