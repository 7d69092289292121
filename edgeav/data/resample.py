"""A teacher's output at the steps of a student that makes fewer of them, such as 25 a second into 12.5.

What must not happen is that a token vanishes: CTC's are spikes, often one step long. The mean of a spike and a blank is
half a spike. "either" asks what was said in at least one of the steps: the blank of the whole is the product of the
blanks, what is left is shared by the tokens in proportion to their sums. A spike survives at full height, and two
halves of the same one add up. Two different tokens in one step are halved: a student's step has room for one.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from edgeav.errors import EdgeavError

Pooling = Literal["either", "loudest", "mean"]


def ratio(teacher_ms: int, student_ms: int) -> int:
    """How many steps of the teacher make one of the student; EdgeavError when that is no whole number."""
    if student_ms % teacher_ms:
        raise EdgeavError(
            f"distill: the student makes a step every {student_ms} ms, the teacher every {teacher_ms} ms."
            " The student's must be a multiple of the teacher's; set inputs.step_ms of the student"
        )
    return student_ms // teacher_ms


def pool(log_probs: Tensor, count: int, blank: int, how: Pooling = "either") -> Tensor:
    """(N * count, V) -> (N, V) log-probabilities."""
    groups = log_probs.reshape(-1, count, log_probs.shape[-1])
    if count == 1:
        return groups[:, 0]
    match how:
        case "mean":
            return groups.logsumexp(1) - torch.tensor(float(count)).log().item()
        case "loudest":  # the one step that is least blank, as it is
            place = groups[..., blank].argmin(1)
            return groups[torch.arange(len(groups), device=place.device), place]
        case "either":
            return _either(groups, blank)


def fitted(log_probs: Tensor, steps: int, blank: int) -> Tensor:
    """(N, V) -> (steps, V): cut, or with certain blanks behind."""
    missing = steps - len(log_probs)
    if missing <= 0:
        return log_probs[:steps]
    silence = log_probs.new_full((missing, log_probs.shape[-1]), -100.0)
    silence[:, blank] = 0.0
    return torch.cat([log_probs, silence])


def _either(groups: Tensor, blank: int) -> Tensor:
    """(N, count, V) -> (N, V)."""
    silent = groups[..., blank].sum(1)
    tokens = groups.logsumexp(1)
    tokens[:, blank] = -torch.inf
    # log(1 - exp(silent)); exact for silences near 1, which most are
    spoken = torch.log(-torch.expm1(silent.clamp(max=-1e-7)))
    pooled = tokens - tokens.logsumexp(-1, keepdim=True) + spoken[:, None]
    pooled[:, blank] = silent
    return pooled.log_softmax(-1)
