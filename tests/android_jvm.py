"""Ask the JVM module of devices/android what it computes: what the tests of the Android app share.

Needs a JDK, JUnit 4 and the Kotlin compiler; `devices/android/check.sh tools` installs the last.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

CHECK = Path(__file__).parents[1] / "devices" / "android" / "check.sh"
ENGINE = Path(__file__).with_name("android_engine.py")
TIME_LIMIT_S = 900  # compiling is 60 s of one core, once; a busy machine takes long
NO_TOOL = 3  # check.sh's exit code


def check(*args: str | Path) -> str:
    """What `check.sh ARGS` prints; the test skips where it lacks a tool."""
    command = ["bash", str(CHECK), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    if done.returncode == NO_TOOL:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def ask(place: Path, *requests: dict[str, Any]) -> list[Any]:
    """One answer for each request; see Probe.kt. `place` is a folder to write in."""
    file = place / "requests.json"
    file.write_text(json.dumps(requests, default=str))
    return json.loads(check("probe", file))


def stored(path: Path, array: NDArray) -> str:
    array.astype(array.dtype.newbyteorder("<")).tofile(path)
    return str(path)


def sound(samples: int, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    swell = 0.1 * np.abs(np.sin(np.arange(samples) / 3000))
    return (swell * random.standard_normal(samples)).astype(np.float32)


def mouths(frames: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (frames, 96, 96), np.uint8)
