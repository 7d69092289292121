"""The engine of a bundle behind standard input and output: what the JVM tests of devices/android ask for log_probs.

    python android_engine.py BUNDLE

For every run: steps as a big-endian int32, then each input's float32 in the order of bundle.json; back come log_probs.
"""

from __future__ import annotations

import sys

import numpy as np

from edgeav.runtime.bundle import read_bundle
from edgeav.runtime.engines import open_engine
from edgeav.runtime.features import from_named


def main(folder: str) -> None:
    bundle = read_bundle(folder)
    engine = open_engine(bundle)
    audio, video, presence = (bundle.features.shapes(1, 1)[i] for i in range(3))
    shapes = {"mel": audio, "samples": audio, "video": video, "presence": presence}
    while header := sys.stdin.buffer.read(4):
        steps = int.from_bytes(header, "big")
        arrays = {}
        for name in bundle.input_names:
            sides = (1, shapes[name][1] * steps, *shapes[name][2:])
            data = sys.stdin.buffer.read(4 * int(np.prod(sides)))
            arrays[name] = np.frombuffer(data, "<f4").reshape(sides).astype(np.float32)
        log_probs = engine.run(*from_named(arrays, bundle.features))
        sys.stdout.buffer.write(log_probs.astype("<f4").tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
