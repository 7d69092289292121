"""Ten minutes of work, not ten milliseconds: does the device keep its pace when it is warm?

Inference follows inference for the time asked for, in windows; each has its median and what the device said of itself
at its end. Only monotonic clocks are read: one that is set meanwhile (NTP on a Pi without a battery) changes nothing.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from edgeav.runtime.engines import Engine
from edgeav.runtime.features import Inputs
from edgeav.runtime.health import condition

WINDOWS = 20


def sustained(engine: Engine, inputs: Inputs, seconds: float) -> dict[str, Any]:
    """{seconds, windows: [{at_s, n, p50_ms, p90_ms, temperature_c, frequency_mhz, throttling}], slowdown}.

    `slowdown`: median of the last quarter of the windows / of the first, above 1: it became slower.
    """
    start = time.perf_counter_ns()
    windows = []
    while (at_s := (time.perf_counter_ns() - start) / 1e9) < seconds:
        times_ms = _window(engine, inputs, min(seconds / WINDOWS, seconds - at_s))
        p50_ms, p90_ms = (float(value) for value in np.percentile(times_ms, (50, 90)))
        windows.append({"at_s": at_s, "n": len(times_ms), "p50_ms": p50_ms, "p90_ms": p90_ms, **condition()})
    quarter = max(1, len(windows) // 4)
    first, last = (np.median([row["p50_ms"] for row in rows]) for rows in (windows[:quarter], windows[-quarter:]))
    elapsed_s = (time.perf_counter_ns() - start) / 1e9
    return {"seconds": elapsed_s, "windows": windows, "slowdown": float(last / first)}


def _window(engine: Engine, inputs: Inputs, seconds: float) -> list[float]:
    """Milliseconds of the inferences of one window: at least one."""
    start = time.perf_counter_ns()
    times = []
    while not times or time.perf_counter_ns() - start < seconds * 1e9:
        before = time.perf_counter_ns()
        engine.run(*inputs)
        times.append((time.perf_counter_ns() - before) / 1e6)
    return times
