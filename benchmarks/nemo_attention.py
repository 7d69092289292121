"""Our local attention against NeMo's own, with the same random weights.

Example: python benchmarks/nemo_attention.py path/to/NeMo

The path is a clone of https://github.com/NVIDIA/NeMo; one file of it is run
(nemo/collections/asr/parts/submodules/multi_head_attention.py), nothing of it is part of this repository. Prints the
largest difference of each case, and fails above 1e-5.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from pathlib import Path

import torch
from torch import nn

from edgeav.models.config import Block, Encoder
from edgeav.models.conformer import LocalAttention, attention_mask, position_table

SOURCE = "nemo/collections/asr/parts/submodules/multi_head_attention.py"
HEADS, HEAD_WIDTH = 3, 8
WIDTH = HEADS * HEAD_WIDTH
CASES = [(3, 0, 31, 31), (3, 1, 31, 31), (3, 1, 40, 33), (8, 1, 20, 20), (16, 1, 100, 90), (128, 1, 700, 650)]
NAMES = {"query": "linear_q", "key": "linear_k", "value": "linear_v", "out": "linear_out", "position": "linear_pos"}


def main() -> None:
    reference = _load(Path(sys.argv[1]) / SOURCE)
    worst = 0.0
    print("window, global tokens, steps, real steps: max abs difference")
    for window, global_tokens, steps, real in CASES:
        difference = compare(reference, window, global_tokens, steps, real)
        worst = max(worst, difference)
        print(f"{window}, {global_tokens}, {steps}, {real}: {difference:.1e}")
    sys.exit(worst > 1e-5)


@torch.inference_mode()
def compare(reference: types.ModuleType, window: int, global_tokens: int, steps: int, real: int) -> float:
    """Max abs difference over the real steps of one utterance."""
    torch.manual_seed(0)
    encoder = Encoder(window=window, global_tokens=global_tokens)
    ours = LocalAttention(WIDTH, Block(heads=HEADS, head_width=HEAD_WIDTH), encoder).eval()
    nn.init.normal_(ours.bias_u)
    nn.init.normal_(ours.bias_v)
    theirs = reference.RelPositionMultiHeadAttentionLongformer(
        HEADS, WIDTH, 0.0, None, None, att_context_size=[window, window], global_tokens=global_tokens
    ).eval()
    weights = {f"pos_{name}": getattr(ours, name)[:, 0] for name in ("bias_u", "bias_v")}
    for name, tensor in ours.state_dict().items():
        module, _, kind = name.partition(".")
        if module in NAMES:
            weights[f"{NAMES[module]}.{kind}"] = tensor
    theirs.load_state_dict(weights)
    x, positions = torch.randn(1, steps, WIDTH), position_table(window + 1, WIDTH)
    padding = torch.arange(steps)[None] >= real
    expected = theirs(x.clone(), x.clone(), x.clone(), padding, positions)
    found = ours(x, positions, attention_mask((~padding).float().unsqueeze(-1)))
    return float((found - expected)[:, :real].abs().max())


def _load(path: Path) -> types.ModuleType:
    """The file as a module; it imports one context manager from NeMo, which does nothing on a CPU."""
    utils = types.ModuleType("nemo.utils")
    utils.avoid_float16_autocast_context = contextlib.nullcontext  # type: ignore[attr-defined]
    sys.modules |= {"nemo": types.ModuleType("nemo"), "nemo.utils": utils}
    spec = importlib.util.spec_from_file_location("nemo_attention", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
