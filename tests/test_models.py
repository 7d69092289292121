"""The audio-visual model: shapes, padding, missing modalities, saving."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch.utils._sympy.value_ranges import bound_sympy

from edgeav.errors import EdgeavError
from edgeav.models import AVModel, ModelConfig, load_model, random_model, save_model
from edgeav.models.config import Block, Encoder
from edgeav.models.conformer import RelativeAttention, _shift, position_table
from edgeav.runtime.inputs import Features


def inputs(steps: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    mel, video = torch.randn(1, 8 * steps, 80, generator=g), torch.randn(1, 2 * steps, 88, 88, generator=g)
    return mel, video, torch.ones(1, steps, 2)


def batched(rows: list[tuple[torch.Tensor, ...]]) -> list[torch.Tensor]:
    """Rows of different lengths, zeros behind the short ones."""
    longest = [max(part.shape[1] for part in parts) for parts in zip(*rows, strict=True)]
    out = []
    for parts, length in zip(zip(*rows, strict=True), longest, strict=True):
        whole = torch.zeros(len(parts), length, *parts[0].shape[2:])
        for row, part in enumerate(parts):
            whole[row, : part.shape[1]] = part[0]
        out.append(whole)
    return out


@pytest.fixture(scope="module")
def model() -> AVModel:
    return random_model()


def test_log_probabilities_come_at_12_5_a_second_and_sum_to_one(model: AVModel) -> None:
    out = model(*inputs(10))
    assert out.shape == (1, 10, model.config.vocabulary)
    torch.testing.assert_close(out.exp().sum(-1), torch.ones(1, 10))


def test_every_row_of_a_padded_batch_equals_the_row_run_alone(model: AVModel) -> None:
    rows = [inputs(steps, seed=steps) for steps in (4, 9, 13)]
    rows[1][2][..., 0] = 0  # lips alone
    rows[1][0].zero_()
    with torch.inference_mode():
        together = model(*batched(rows))
        for row, single in enumerate(rows):
            steps = single[2].shape[1]
            torch.testing.assert_close(together[row, :steps], model(*single)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("present", [(1, 0), (0, 1), (0, 0)])
def test_a_missing_modality_leaves_the_output_finite_and_unaware_of_it(
    model: AVModel, present: tuple[int, int]
) -> None:
    mel, video, presence = inputs(8)
    presence = presence * torch.tensor(present)
    with torch.inference_mode():
        out = model(mel * present[0], video * present[1], presence)
        noise = model(
            mel if present[0] else torch.randn_like(mel), video if present[1] else torch.randn_like(video), presence
        )
    assert out.isfinite().all()
    torch.testing.assert_close(out, noise, atol=1e-5, rtol=0)


def test_relative_attention_equals_the_formula_with_explicit_distances() -> None:
    torch.manual_seed(0)
    width, steps, block = 24, 7, Block(heads=3, head_width=8)
    attention = RelativeAttention(width, block, Encoder())
    torch.nn.init.normal_(attention.bias_u)
    torch.nn.init.normal_(attention.bias_v)
    x, table = torch.randn(1, steps, width), position_table(steps, width)
    q, k, v = (f(x).view(steps, 3, 8) for f in (attention.query, attention.key, attention.value))
    r = attention.position(table).view(2 * steps - 1, 3, 8)
    expected = torch.zeros(steps, 3, 8)
    for head in range(3):
        u, w = attention.bias_u[head, 0], attention.bias_v[head, 0]
        for i in range(steps):
            # row 0 of the table is distance steps-1, so distance i-j is row steps-1-(i-j)
            scores = torch.stack(
                [(q[i, head] + u) @ k[j, head] + (q[i, head] + w) @ r[steps - 1 - (i - j), head] for j in range(steps)]
            )
            expected[i, head] = torch.softmax(scores / 8**0.5, 0) @ v[:, head]
    got = attention(x, table, torch.zeros(1, 1, 1, steps))
    torch.testing.assert_close(got[0], attention.out(expected.reshape(steps, 24)), atol=1e-5, rtol=1e-5)


def test_the_exported_shift_by_distance_plans_no_more_memory_than_it_uses() -> None:
    class Shift(torch.nn.Module):
        def forward(self, scores: torch.Tensor) -> torch.Tensor:
            return _shift(scores)

    n = torch.export.Dim("n", min=2, max=200)
    program = torch.export.export(Shift(), (torch.zeros(1, 2, 24, 47),), dynamic_shapes=({2: n, 3: 2 * n - 1},))
    program = program.run_decompositions()
    values = [node.meta.get("val") for node in program.graph.nodes]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    planned = [math.prod(_most(size, program.range_constraints) for size in tensor.shape) for tensor in tensors]
    assert max(planned) == 2 * 200 * 400  # the padded scores, every row of them


def _most(size: int | torch.SymInt, ranges: dict) -> int:
    return size if isinstance(size, int) else int(bound_sympy(size.node.expr, ranges).upper)  # type: ignore[arg-type]


def test_a_model_rebuilds_from_its_folder_with_other_widths_in_every_block(tmp_path: Path) -> None:
    blocks = (Block(heads=2, feed_forward=64), Block(heads=3, feed_forward_2=96, conv_channels=40, kernel=5))
    model = random_model(config=ModelConfig(blocks=blocks, tokens=("▁a",)))
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    torch.testing.assert_close(again(*inputs(5)), model(*inputs(5)))


def test_half_precision_storage_halves_the_file_and_loads_as_float32(model: AVModel, tmp_path: Path) -> None:
    save_model(model, tmp_path / "full")
    save_model(model, tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert 0.49 < sizes[1] / sizes[0] < 0.52
    assert {p.dtype for p in load_model(tmp_path / "half").parameters()} == {torch.float32}


def test_weights_that_do_not_fit_are_all_named(model: AVModel, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["head.weight"] = weights["head.weight"][:, :5].contiguous()
    weights["extra"] = weights.pop("head.bias")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(EdgeavError, match=r"(?s)missing head\.bias.*unexpected extra.*head\.weight is .* asks for"):
        load_model(tmp_path)


def test_a_truncated_weight_file_is_a_clear_error(model: AVModel, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EdgeavError, match="truncated"):
        load_model(tmp_path)


def test_a_pickle_is_never_opened(tmp_path: Path, model: AVModel) -> None:
    save_model(model, tmp_path)
    torch.save({"head.bias": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(EdgeavError, match="not a safetensors file"):
        load_model(tmp_path)


def test_a_bad_config_names_the_field(model: AVModel, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    path = tmp_path / "model.json"
    path.write_text(path.read_text().replace('"heads": 4', '"heads": 0', 1).replace('"dropout"', '"dropuot"'))
    with pytest.raises(EdgeavError, match=r"(?s)blocks.*heads.*dropuot"):
        load_model(tmp_path)


def test_an_even_kernel_and_parts_that_contradict_each_other_are_refused_together() -> None:
    with pytest.raises(ValidationError, match="must be odd, not 8"):
        Block(kernel=8)
    with pytest.raises(ValidationError, match=r"(?s)fusion is for two modalities.*at least one block.*inter_ctc"):
        ModelConfig(inputs=Features(video=None), video=None, blocks=(), inter_ctc=(3,))
