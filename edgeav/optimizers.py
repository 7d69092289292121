"""Who moves the weights: AdamW alone, or Muon for the matrices of the Conformer blocks and AdamW for the rest.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) moves a matrix by its momentum with all singular
values made about equal. Its updates are scaled by shape (Liu et al. 2025, https://arxiv.org/abs/2502.16982), so that
both share one learning rate; four times as large as that paper's, which at the rates of small models was too timid.
Making values equal costs fifteen products of matrices: every process does a share of the matrices and sends what it
found to the others.

A group of parameters takes `times` the learning rate of the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce, get_rank, get_world_size, is_initialized
from torch.nn.utils import parametrize
from torch.optim import AdamW, Optimizer
from torch.optim._muon import _zeropower_via_newtonschulz as orthogonal

from edgeav.job import Job
from edgeav.models.conformer import ConformerBlock
from edgeav.quant.learned import learned_activations

MOMENTUM = 0.95
COEFFICIENTS, ITERATIONS, EPSILON = (3.4445, -4.7750, 2.0315), 5, 1e-7  # of the polynomial, as published
RMS = 0.8  # of an update, for a learning rate of 1


def optimizers_of(training: nn.Module, job: Job) -> list[Optimizer]:
    """Of a whole job; what they are in the middle of lies in their state_dict."""
    turned = list(block_matrices(training)) if job.optimizer == "muon" else []
    adam = AdamW(_groups(training, job, {id(p) for p in turned}), lr=job.learning_rate, betas=(0.9, 0.98), fused=True)
    return [adam, Muon(turned, job.learning_rate, job.weight_decay)] if turned else [adam]


class Muon(Optimizer):
    """Of matrices alone; torch.optim.Muon's arithmetic, the work shared by all processes."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__([{"params": list(matrices), "lr": lr, "weight_decay": weight_decay, "times": 1.0}], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            matrices = [p for p in group["params"] if p.grad is not None]
            for matrix, update in zip(matrices, self._updates(matrices), strict=True):
                scale = RMS * max(matrix.shape) ** 0.5
                matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)

    def _updates(self, matrices: list[Tensor]) -> list[Tensor]:
        """The direction of each; this process's share is computed, the others' received."""
        rank, processes = (get_rank(), get_world_size()) if is_initialized() else (0, 1)
        found = []
        for number, matrix in enumerate(matrices):
            looked = self._looked_ahead(matrix)
            mine = number % processes == rank
            found.append(orthogonal(looked, COEFFICIENTS, ITERATIONS, EPSILON) if mine else looked.bfloat16().zero_())
        if processes > 1:
            flat = torch.cat([update.flatten() for update in found])
            all_reduce(flat)  # zeros and one share: a sum is a gathering
            found = [
                part.view(m.shape) for part, m in zip(flat.split([m.numel() for m in matrices]), matrices, strict=True)
            ]
        return found

    def _looked_ahead(self, matrix: Tensor) -> Tensor:
        """Nesterov's momentum."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
        return matrix.grad.lerp(state["momentum_buffer"], MOMENTUM)


def block_matrices(training: nn.Module) -> Iterator[Tensor]:
    for block in training.modules():
        if isinstance(block, ConformerBlock):
            yield from (_trained(layer) for layer in block.modules() if isinstance(layer, nn.Linear))


def _trained(layer: nn.Linear) -> Tensor:
    """The matrix that is trained: in quantization-aware training not the one that is multiplied with."""
    rounded = parametrize.is_parametrized(layer, "weight")
    return layer.get_parameter("parametrizations.weight.original") if rounded else layer.weight


def _groups(module: nn.Module, job: Job, others: set[int]) -> list[dict]:
    """Without `others`. Matrices decay; biases, norms and other vectors do not. Ranges have a rate of their own."""
    ranges = [activation.stretch for activation in learned_activations(module)]
    own = others | {id(stretch) for stretch in ranges}
    matrices = [p for p in module.parameters() if p.ndim >= 2 and id(p) not in own]
    vectors = [p for p in module.parameters() if p.ndim < 2 and id(p) not in own]
    groups = [
        {"params": matrices, "weight_decay": job.weight_decay, "times": 1.0},
        {"params": vectors, "weight_decay": 0.0, "times": 1.0},
        {"params": ranges, "weight_decay": 0.0, "times": job.range_learning_rate / job.learning_rate},
    ]
    return [group for group in groups if group["params"]]
