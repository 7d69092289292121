"""Our Conformer block without positions against torchaudio's Conformer, with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchaudio.models import Conformer
from torchaudio.models.conformer import ConformerLayer

from edgeav.models.config import Block, Encoder
from edgeav.models.conformer import ConformerBlock, attention_mask

WIDTH, HEADS, HIDDEN, KERNEL, BLOCKS = 48, 3, 80, 31, 2
LENGTHS = (40, 33, 7)

# ours -> torchaudio's, in one layer
NAMES = {
    "feed_forward_1.up": "ffn1.sequential.1",
    "feed_forward_1.down": "ffn1.sequential.4",
    "feed_forward_2.up": "ffn2.sequential.1",
    "feed_forward_2.down": "ffn2.sequential.4",
    "attention.out": "self_attn.out_proj",
    "conv.expand": "conv_module.sequential.0",
    "conv.depthwise": "conv_module.sequential.2",
    "conv.norm": "conv_module.sequential.3",
    "conv.project": "conv_module.sequential.5",
    "norms.0": "ffn1.sequential.0",
    "norms.1": "self_attn_layer_norm",
    "norms.2": "conv_module.layer_norm",
    "norms.3": "ffn2.sequential.0",
    "norms.4": "final_layer_norm",
}


def theirs() -> Conformer:
    """With random norms and biases too: neutral ones would hide a mistake."""
    torch.manual_seed(0)
    model = Conformer(WIDTH, HEADS, HIDDEN, BLOCKS, KERNEL).eval()
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        if values.ndim == 1:
            nn.init.uniform_(values, 0.5, 1.5) if name.endswith(("weight", "var")) else nn.init.normal_(values, std=0.3)
    return model


def ours(model: Conformer) -> nn.ModuleList:
    """The same blocks with the same weights."""
    block = Block(
        heads=HEADS,
        head_width=WIDTH // HEADS,
        feed_forward=HIDDEN,
        feed_forward_2=HIDDEN,
        conv_channels=WIDTH,
        kernel=KERNEL,
    )
    blocks = nn.ModuleList(
        [ConformerBlock(WIDTH, block, Encoder(positions="none"), dropout=0.0) for _ in range(BLOCKS)]
    )
    for layer, copy in zip(model.conformer_layers, blocks, strict=True):
        state, weights = layer.state_dict(), {}
        for kind in ("weight", "bias"):
            parts = state[f"self_attn.in_proj_{kind}"].chunk(3)
            weights |= {f"attention.{name}.{kind}": w for name, w in zip(("query", "key", "value"), parts, strict=True)}
        for name, wanted in copy.state_dict().items():
            module, _, kind = name.rpartition(".")
            if module in NAMES:
                weights[name] = state[f"{NAMES[module]}.{kind}"].reshape(
                    wanted.shape
                )  # a kernel of 1 is a linear layer
        copy.load_state_dict(weights)
    return blocks.eval()


def run(blocks: nn.ModuleList, x: Tensor, valid: Tensor) -> Tensor:
    for block in blocks:
        x = block(x, torch.empty(0), valid, attention_mask(valid))
    return x


@pytest.mark.parametrize("steps", LENGTHS)
def test_blocks_equal_torchaudios_at_any_length(steps: int) -> None:
    model, x = theirs(), torch.randn(2, steps, WIDTH)
    with torch.inference_mode():
        expected = model(x, torch.tensor([steps, steps]))[0]
        torch.testing.assert_close(run(ours(model), x, torch.ones(2, steps, 1)), expected, atol=1e-5, rtol=0)


def test_a_padded_batch_equals_torchaudios_answer_to_each_row_alone() -> None:
    """Alone, because torchaudio's convolution, unlike its attention, is not masked: it sees what padding became."""
    model, x = theirs(), torch.randn(len(LENGTHS), max(LENGTHS), WIDTH)
    valid = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).float().unsqueeze(-1)
    with torch.inference_mode():
        got = run(ours(model), x, valid)
        for row, steps in enumerate(LENGTHS):
            expected = model(x[row : row + 1, :steps], torch.tensor([steps]))[0]
            torch.testing.assert_close(got[row : row + 1, :steps], expected, atol=1e-5, rtol=0)


def test_attention_hides_padding_as_torchaudios_does() -> None:
    model, x = theirs(), torch.randn(len(LENGTHS), max(LENGTHS), WIDTH)
    valid = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).float().unsqueeze(-1)
    block, layer, hidden = ours(model)[0], model.conformer_layers[0], valid.squeeze(-1) == 0
    assert isinstance(block, ConformerBlock) and isinstance(layer, ConformerLayer)
    turned = x.transpose(0, 1)  # torchaudio puts time first
    with torch.inference_mode():
        expected = layer.self_attn(turned, turned, turned, hidden, need_weights=False)[0].transpose(0, 1)
        got = block.attention(x, torch.empty(0), attention_mask(valid))
        torch.testing.assert_close(got * valid, expected * valid, atol=1e-5, rtol=0)
