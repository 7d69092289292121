"""The attention decoder: against torch's own layers, padding, causality, the cache, the teacher's size."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edgeav.models.config import AttentionDecoder, Encoder, ModelConfig
from edgeav.models.decoder import DecoderBlock, MultiHead, TextDecoder

CONFIG = ModelConfig(
    width=24,
    encoder=Encoder(norm_epsilon=1e-12),
    decoder=AttentionDecoder(blocks=2, heads=3, feed_forward=40, eos=6),
    tokens=tuple("abcdefg"),
)


@pytest.fixture(scope="module")
def decoder() -> TextDecoder:
    torch.manual_seed(0)
    decoder = TextDecoder(CONFIG).eval()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.3)  # biases and norms too, so that a forgotten one shows
    return decoder


def example(batch: int = 2, length: int = 5, steps: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(batch)
    tokens = torch.randint(CONFIG.vocabulary, (batch, length), generator=g)
    return tokens, torch.randn(batch, steps, CONFIG.width, generator=g), torch.ones(batch, steps, 1)


def copied(block: DecoderBlock) -> nn.TransformerDecoderLayer:
    """torch's layer with the weights of ours."""
    theirs = nn.TransformerDecoderLayer(24, 3, 40, 0.0, "relu", 1e-12, batch_first=True, norm_first=True).eval()

    def attention(to: nn.MultiheadAttention, ours: MultiHead) -> dict[Tensor, Tensor]:
        parts = (ours.query, ours.key, ours.value)
        assert to.in_proj_weight is not None
        return {
            to.in_proj_weight: torch.cat([part.weight for part in parts]),
            to.in_proj_bias: torch.cat([part.bias for part in parts]),
            to.out_proj.weight: ours.out.weight,
            to.out_proj.bias: ours.out.bias,
        }

    pairs = attention(theirs.self_attn, block.self_attention)
    pairs |= attention(theirs.multihead_attn, block.source_attention)
    layers = [(theirs.linear1, block.feed_forward.up), (theirs.linear2, block.feed_forward.down)]
    norms = zip((theirs.norm1, theirs.norm2, theirs.norm3), block.norms, strict=True)
    for to, ours in [*layers, *norms]:
        pairs |= {to.weight: ours.weight, to.bias: ours.bias}
    with torch.no_grad():
        for to, ours in pairs.items():
            to.copy_(ours)
    return theirs


def test_it_equals_torchs_decoder_layers_with_the_same_weights(decoder: TextDecoder) -> None:
    tokens, memory, valid = example()
    valid[1, 5:] = 0
    place = torch.arange(5.0)
    x = decoder.embed(tokens) * math.sqrt(24)
    for i in range(12):
        x[:, :, 2 * i] += torch.sin(place / 10_000 ** (2 * i / 24))
        x[:, :, 2 * i + 1] += torch.cos(place / 10_000 ** (2 * i / 24))
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    for block in decoder.blocks:
        assert isinstance(block, DecoderBlock)
        x = copied(block)(x, memory, tgt_mask=causal, memory_key_padding_mask=valid[..., 0] == 0)
    expected = decoder.head(decoder.norm(x))
    torch.testing.assert_close(decoder(tokens, memory, valid), expected, atol=1e-4, rtol=1e-4)


def test_the_teachers_decoder_has_as_many_parameters_as_auto_avsrs() -> None:
    settings = AttentionDecoder(blocks=6, heads=12, feed_forward=3072, eos=5048)
    tokens = tuple(str(i) for i in range(5049))
    with torch.device("meta"):
        decoder = TextDecoder(ModelConfig(width=768, decoder=settings, tokens=tokens, blank_index=0))
    assert sum(p.numel() for p in decoder.parameters()) == 64_472_505


def test_every_row_of_a_padded_batch_equals_the_row_run_alone(decoder: TextDecoder) -> None:
    tokens, memory, valid = example(batch=3)
    valid[0, 2:], valid[1, 6:] = 0, 0
    together = decoder(tokens, memory, valid)
    for row, (steps, length) in enumerate([(2, 5), (6, 3), (7, 1)]):
        alone = decoder(tokens[row : row + 1, :length], memory[row : row + 1, :steps], valid[row : row + 1, :steps])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)


def test_no_output_depends_on_a_later_token(decoder: TextDecoder) -> None:
    tokens, memory, valid = example()
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % CONFIG.vocabulary
    before, after = decoder(tokens, memory, valid), decoder(changed, memory, valid)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert (after[:, 3:] - before[:, 3:]).abs().amax(-1).min() > 1e-3


def test_steps_with_the_cache_equal_the_forward_pass_of_every_hypothesis(decoder: TextDecoder) -> None:
    _, memory, valid = example()
    valid[0, 4:] = 0
    g = torch.Generator().manual_seed(5)
    texts = torch.full((2, 1, 1), 6)  # (B, K, L), one hypothesis each
    cache = decoder.begin(memory, valid)
    for kept in (3, 4, 2, 4):
        logits, cache = decoder.step(texts[:, :, -1], cache)
        parents = torch.randint(texts.shape[1], (2, kept), generator=g)
        flat, each = texts.flatten(0, 1), texts.shape[1]
        whole = decoder(flat, memory.repeat_interleave(each, 0), valid.repeat_interleave(each, 0))[:, -1]
        torch.testing.assert_close(logits.flatten(0, 1), whole, atol=1e-4, rtol=1e-4)
        cache = cache.select(parents)
        newest = torch.randint(CONFIG.vocabulary, (2, kept, 1), generator=g)
        texts = torch.cat([texts.gather(1, parents[..., None].expand(-1, -1, texts.shape[2])), newest], dim=-1)


def test_eos_is_the_blanks_output_unless_named_and_must_be_an_output() -> None:
    assert ModelConfig(decoder=AttentionDecoder(heads=4), tokens=("a", "b")).eos == 2
    assert CONFIG.eos == 6
    with pytest.raises(ValidationError, match=r"decoder\.eos: 3 is not one of 3 outputs"):
        ModelConfig(decoder=AttentionDecoder(heads=4, eos=3), tokens=("a", "b"))
    with pytest.raises(ValidationError, match=r"decoder\.heads must divide the width 192"):
        ModelConfig(decoder=AttentionDecoder(heads=5))
