"""What runs on a device: one file, agent.pyz, made of this package (see edgeav/agent.py).

    python3 agent.pyz facts --json OUT                     what this device is and has
    python3 agent.pyz bench BUNDLE [BUNDLE2] … --json OUT  measure (edgeav.runtime.bench)
    python3 agent.pyz recognize BUNDLE CLIPS.npz --json OUT   transcripts of clips

numpy and one engine; never torch of its own accord (ExecuTorch's Python runtime brings it).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeav import __version__
from edgeav.errors import EdgeavError
from edgeav.runtime.health import condition, device_facts
from edgeav.runtime.machine import machine

if TYPE_CHECKING:
    from edgeav.runtime.features import Inputs
    from edgeav.runtime.inputs import Features

ENGINES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "executorch": "executorch", "aoti": "torch"}


def facts() -> dict[str, Any]:
    """Nothing is imported for it: versions come from the packages' metadata."""
    versions = {name: _version(package) for name, package in (ENGINES | {"numpy": "numpy"}).items()}
    return {
        "edgeav": __version__,
        "python": platform.python_version(),
        **machine(),
        **device_facts(),
        **condition(),
        "versions": {name: found for name, found in versions.items() if found},
    }


def recognize(folder: Path, clips: Path, threads: int = 1) -> dict[str, Any]:
    """Transcripts of the clips in an .npz file: sound-I (S,) float32 and mouth-I (T, 96, 96) uint8, each may be absent.

    Features, model and decoding are all computed here, as on the machine that checks them.
    """
    from edgeav.runtime.bundle import read_bundle
    from edgeav.runtime.ctc import decode
    from edgeav.runtime.engines import open_engine

    bundle = read_bundle(folder)
    engine = open_engine(bundle, threads)
    texts = []
    for inputs in clip_inputs(clips, bundle.features):
        texts.append(decode(engine.run(*inputs)[0], bundle.tokens, bundle.blank, inputs.presence[0]).text)
    return {"runtime": f"{engine.name} {engine.version}", "texts": texts}


def clip_inputs(clips: Path, features: Features) -> Iterator[Inputs]:
    """What a model is fed for each clip of an .npz file."""
    import numpy as np

    from edgeav.runtime.features import model_inputs

    with np.load(clips, allow_pickle=False) as arrays:
        for index in range(1 + max(int(name.rpartition("-")[2]) for name in arrays.files)):
            sound, mouth = (arrays[n] if (n := f"{kind}-{index}") in arrays else None for kind in ("sound", "mouth"))
            yield model_inputs(sound, mouth, features)


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["bench"]:
        from edgeav.runtime import bench

        return bench.main(words[1:])
    parser = argparse.ArgumentParser(prog="agent.pyz")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("bench", help="measure a bundle: bench --help")
    clips = commands.add_parser("recognize", help="transcripts of clips")
    clips.add_argument("bundle", type=Path)
    clips.add_argument("clips", type=Path)
    clips.add_argument("--threads", type=int, default=1)
    for command in (clips, commands.add_parser("facts", help="what this device is and has")):
        command.add_argument("--json", type=Path, help="write the result there instead of to stdout")
    args = parser.parse_args(words)
    try:
        found = facts() if args.command == "facts" else recognize(args.bundle, args.clips, args.threads)
    except EdgeavError as error:
        print(error, file=sys.stderr)
        return 2
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    args.json.write_text(text, encoding="utf-8") if args.json else print(text, end="")
    return 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
