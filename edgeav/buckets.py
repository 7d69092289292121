"""Fixed shapes beside the dynamic graph: which lengths are worth a file of their own.

An engine that knows every shape folds more and plans its memory once; a clip is then padded to the next length that
there is a file for. More lengths waste less padding and more disk. Which K lengths cost least, over the lengths that
clips really have, is a shortest path with K edges, found by dynamic programming (Bellman 1957; batching by bucketed
lengths: Khomenko et al. 2016, https://arxiv.org/abs/1708.05604).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgeav.errors import EdgeavError

Cost = Callable[[int], float]


def work(steps: int, attention_share: float = 0.01) -> float:
    """What `steps` steps cost, in steps of 4 s: linear but for attention, whose products grow with the square."""
    return steps * (1 - attention_share + attention_share * steps / 50)


def plan_buckets(histogram: Mapping[int, int], count: int, cost: Cost = work) -> list[int]:
    """At most `count` lengths, ascending, that make the padded work of all clips least; the longest clip fits.

    `histogram`: length in steps -> number of clips. EdgeavError for an empty one.
    """
    lengths = sorted(steps for steps, clips in histogram.items() if clips > 0)
    if not lengths or count < 1:
        raise EdgeavError("buckets: needs at least one bucket and one clip to plan for")
    clips = [histogram[steps] for steps in lengths]
    # best[k][j]: least work of the clips up to lengths[j] with k + 1 buckets, and where the last of them begins
    best: list[list[tuple[float, int]]] = [[(sum(clips[: j + 1]) * cost(lengths[j]), 0) for j in range(len(lengths))]]
    for k in range(1, min(count, len(lengths))):
        best.append([min(_last_bucket(best[k - 1], clips, cost(lengths[j]), j)) for j in range(len(lengths))])
    return _ends(best, lengths)


def _last_bucket(before: list[tuple[float, int]], clips: list[int], price: float, end: int) -> list[tuple[float, int]]:
    """(work, start) for every start of a last bucket that ends at `end`; one over all clips stays allowed."""
    options = [(sum(clips[: end + 1]) * price, 0)]
    for start in range(1, end + 1):
        options.append((before[start - 1][0] + sum(clips[start : end + 1]) * price, start))
    return options


def _ends(best: list[list[tuple[float, int]]], lengths: list[int]) -> list[int]:
    """Walk back from the longest clip."""
    ends, end, k = [], len(lengths) - 1, len(best) - 1
    while True:
        ends.append(lengths[end])
        start = best[k][end][1]
        if start == 0:
            return ends[::-1]
        end, k = start - 1, k - 1
