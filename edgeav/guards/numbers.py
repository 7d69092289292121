"""The numbers of a quantized file against those that they stand for: pure arithmetic, the same for every engine.

A stored integer q stands for scale * (q - zero point). Rounding moves a number by at most half a scale; anything beyond
that is a wrong scale, a wrong zero point, or another layer's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeav.quant.plan import Ends
from edgeav.runtime.features import Inputs

STEPS = 255  # of 8 bits
SYMMETRIC = 128  # the zero point of a range that is as wide on both sides, which NNCF gives to products of activations
HALF_STEP = 0.51  # rounding, and the last bits of float arithmetic
RANGE_TOLERANCE = 0.01  # of a scale: a file's x 1.1 is ten times that, float noise a thousandth of it
TIE = 0.502  # zero points: a range exactly between two grids may be rounded either way
WIRING_CLIPS = 8  # every eighth clip of a calibration is only heard, every eighth only seen
WIRING_TOLERANCE = 1e-3  # of a log-probability, as for every float artifact


@dataclass(frozen=True)
class Inspection:
    """What an inspection looked at, and what it found wrong: `findings` in words, and what runs in float."""

    weights: int
    """Tensors of weights and biases that were compared with the float model's."""
    ranges: int
    """Quantized activations that were compared with what calibration saw."""
    wiring: float
    """Difference of log-probabilities, by at most `wiring_limit`: the largest after the float numbers were put back.
    ExecuTorch: from an emulation of the file, in multiples of what quantization itself does (root mean squares)."""
    wiring_limit: float
    not_integer: tuple[str, ...]
    """Modules that the plan wants in integers and the runtime computes in float."""
    findings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.findings and not self.not_integer


@dataclass(frozen=True)
class Stored:
    """Integers as a file holds them; scale and zero point broadcast over them."""

    integers: NDArray
    scale: NDArray[np.float32]
    zero_point: NDArray | int = 0

    @property
    def values(self) -> NDArray[np.float64]:
        return (self.integers.astype(np.float64) - self.zero_point) * self.scale.astype(np.float64)


@dataclass
class Range:
    """One quantized activation: what its 256 levels span in the file, and what calibration put there."""

    name: str
    low: float
    high: float
    seen: tuple[float, float] = (0.0, 0.0)
    group: str = ""
    """Activations that share one range name the same group; "" stands alone."""
    resolution: float = 0.0
    """By how much its step may be off because the file was read as text."""

    @property
    def step(self) -> float:
        return (self.high - self.low) / STEPS

    @property
    def zero_point(self) -> float:
        """Counted from the lowest level."""
        return -self.low / self.step


@dataclass
class Extremes:
    """Smallest and largest value of each activation over all clips."""

    lows: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    highs: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, lows: Sequence[NDArray], highs: Sequence[NDArray]) -> None:
        low, high = (np.array([float(value) for value in values]) for values in (lows, highs))
        first = not len(self.lows)
        self.lows = low if first else np.minimum(self.lows, low)
        self.highs = high if first else np.maximum(self.highs, high)


def few(clips: Sequence[Inputs]) -> list[Inputs]:
    """Those that wiring is measured with: it is there in the first clip or not at all."""
    return [clips[index] for index in range(min(WIRING_CLIPS, len(clips)))]


def measure_wiring(
    ranges: Sequence[Range],
    clips: Sequence[Inputs],
    bare: Callable[[Inputs], Sequence[NDArray]],
    reference: Callable[[Inputs], NDArray],
) -> float:
    """Fill in what each range saw; the largest difference of a log-probability from the float file.

    `bare`: inputs -> log_probs, then the smallest and the largest value at each range, one after the other.
    """
    extremes, worst = Extremes(), 0.0
    for index, inputs in enumerate(clips):
        log_probs, *found = bare(inputs)
        extremes.add(found[0::2], found[1::2])
        if index < WIRING_CLIPS:
            difference = np.abs(log_probs - reference(inputs))
            worst = max(worst, float(difference[inputs.presence.any(axis=-1)].max(initial=0)))
    for item, low, high in zip(ranges, extremes.lows, extremes.highs, strict=True):
        item.seen = (low, high)
    return worst


def take_learned(ranges: Iterable[Range], learned: Mapping[str, Ends]) -> Iterator[str]:
    """What each range must hold is what training found for its tensor, whatever the clips have there."""
    for item in ranges:
        if item.name in learned:
            item.seen = learned[item.name]
        else:
            yield f"{item.name}: rounded, and training had no range for it"


def wiring_findings(wiring: float) -> Iterator[str]:
    """Whether a file with the float numbers put back computes what the float file does."""
    if not wiring <= WIRING_TOLERANCE:
        yield f"wiring: with the float numbers put back, log-probabilities differ by {wiring:.2g}"


def weight_findings(name: str, stored: Stored, expected: NDArray) -> Iterator[str]:
    """Whether `stored` is `expected`, rounded. The outermost levels may stand for anything beyond them."""
    if stored.integers.shape != expected.shape:
        yield f"{name}: shape {stored.integers.shape}, must be {expected.shape}"
        return
    values, info = stored.values, np.iinfo(stored.integers.dtype)
    ends = (stored.integers >= info.max) & (expected > values) | (stored.integers <= info.min + 1) & (expected < values)
    steps = np.where(ends, 0, np.abs(values - expected) / np.maximum(stored.scale, np.finfo(np.float32).tiny))
    if not steps.max(initial=0) <= HALF_STEP:
        yield f"{name}: up to {steps.max():.1f} quantization steps from the float model, rounding explains 0.5"


def constant_findings(name: str, found: NDArray, expected: NDArray) -> Iterator[str]:
    """Numbers that stay float must be the same ones."""
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-5, atol=1e-7):
        yield f"{name}: a float constant differs from the float model's"


def range_findings(ranges: Iterable[Range], tuned: bool = False) -> Iterator[str]:
    """Whether each range is the smallest that holds zero and all that calibration saw, on whole levels.

    `tuned`: NNCF's way, which widens a range until zero is exactly one of its levels, instead of rounding it there.
    """
    ranges = list(ranges)
    for item in ranges:
        partners = [other for other in ranges if item.group and other.group == item.group] or [item]
        low = min(0.0, *(other.seen[0] for other in partners))
        high = max(0.0, *(other.seen[1] for other in partners))
        if not item.high > item.low:
            yield f"{item.name}: levels from {item.low:g} to {item.high:g}"
        elif high > low:
            yield from _range_findings(item, low, high, tuned)


def _range_findings(item: Range, low: float, high: float, tuned: bool) -> Iterator[str]:
    if tuned and abs(item.zero_point - SYMMETRIC) < 1e-3 and abs(item.high - max(-low, high)) < item.step / 50:
        return
    exact = -low / (high - low) * STEPS
    expected = _tuned_step(low, high, round(exact)) if tuned else (high - low) / STEPS
    if not abs(item.step - expected) <= RANGE_TOLERANCE * expected + item.resolution:
        yield f"{item.name}: scale {item.step:.6g}, calibration says {expected:.6g}"
    elif not abs(item.zero_point - exact) <= TIE:
        yield f"{item.name}: zero point {item.zero_point:.2f}, calibration says {round(exact)}"


def _tuned_step(low: float, high: float, zero_point: int) -> float:
    """The wider of the two ranges that keep one end and move the other until zero is level `zero_point`."""
    by_low = -low / zero_point if zero_point > 0 else 0.0
    by_high = high / (STEPS - zero_point) if zero_point < STEPS else 0.0
    return max(by_low, by_high)
