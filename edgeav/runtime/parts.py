"""Where an utterance's time goes around the model: mel, crop, encode, decode, each on its own.

Capture and the search for the face need a camera and OpenCV; an app that has them measures them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeav.runtime.bundle import Bundle
from edgeav.runtime.ctc import decode
from edgeav.runtime.engines import Engine
from edgeav.runtime.features import hear, pack, see
from edgeav.runtime.inputs import MOUTH, SAMPLE_RATE_HZ, VIDEO_FPS

RUNS, WARMUP = 10, 2


def parts_ms(engine: Engine, bundle: Bundle, seconds: float) -> dict[str, Any]:
    """{part: median ms} for an utterance of noise; a part that the model lacks is left out."""
    random = np.random.default_rng(0)
    sound = (0.1 * random.standard_normal(round(seconds * SAMPLE_RATE_HZ))).astype(np.float32)
    mouth = random.integers(0, 256, (round(seconds * VIDEO_FPS), MOUTH, MOUTH), np.uint8)
    heard, seen = hear(sound, bundle.features), see(mouth, bundle.features)
    inputs = pack(heard, seen, bundle.features)
    log_probs = engine.run(*inputs)[0]
    works: dict[str, Callable[[], object] | None] = {
        "mel": None if heard is None else lambda: hear(sound, bundle.features),
        "crop": None if seen is None else lambda: see(mouth, bundle.features),
        "encode": lambda: engine.run(*inputs),
        "decode": lambda: decode(log_probs, bundle.tokens, bundle.blank, inputs.presence[0]),
    }
    return {name: _median_ms(work) for name, work in works.items() if work}


def _median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(WARMUP + RUNS):
        start = time.perf_counter_ns()
        work()
        times.append((time.perf_counter_ns() - start) / 1e6)
    return float(np.median(times[WARMUP:]))
