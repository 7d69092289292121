"""The model of tiny_bundle for ExecuTorch, lowered to XNNPACK in a few seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_bundle import TOKENS, WIDTHS, _spec, expected, named, some_inputs, weights

from edgeav.runtime.bundle import Bundle, write_bundle, write_golden
from edgeav.runtime.ctc import decode


class Tiny(torch.nn.Module):
    """The three matrices and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        for name, weight in weights().items():
            self.register_buffer(name, torch.from_numpy(weight))

    def forward(self, mel: torch.Tensor, video: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
        inputs = {"mel": mel, "video": video, "presence": presence}
        flat = [inputs[name].reshape(1, -1, width) @ self.get_buffer(name) for name, width in WIDTHS.items()]
        return (flat[0] + flat[1] + flat[2]).log_softmax(dim=-1)


def make_executorch_bundle(folder: Path) -> Bundle:
    folder.mkdir(parents=True)
    (folder / "model.pte").write_bytes(_lower())
    golden = []
    for steps in (5, 40):
        inputs = some_inputs(steps, seed=steps)
        log_probs = expected(inputs)
        text = decode(log_probs[0], TOKENS, len(TOKENS), inputs.presence[0]).text
        arrays = {**named(inputs), "log_probs": log_probs}
        golden.append(write_golden(folder, f"noise-{steps}", arrays, transcript=text, tolerance=1e-4))
    return write_bundle(folder, spec=_spec("executorch", "fp32", "model.pte", golden))


def _lower() -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    steps = torch.export.Dim("steps", min=2, max=200)
    shapes = ({1: 8 * steps}, {1: 2 * steps}, {1: steps})
    example = tuple(torch.from_numpy(array) for array in some_inputs(10))
    program = torch.export.export(Tiny(), example, dynamic_shapes=shapes)
    return to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer
