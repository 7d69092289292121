"""A teacher's posteriors on the disk: it runs once, not once an epoch.

Of each step the k most probable tokens are kept, as float16 log-probabilities, and how much is left for all others,
which is spread evenly over them when read. If r is left to m others, the KL divergence from a student q is wrong by at
most r (log m + max log q - min log q over those others) and the rounding, 0.0005 of each kept log-probability.

They belong to clips at their own tempo, heard without noise and seen without a moving camera: training that changes the
time or the content of a clip needs the teacher beside it (edgeav/teacher.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeav.data.cache import ROWS, DecodedClips
from edgeav.errors import EdgeavError
from edgeav.progress import Progress
from edgeav.run import digest

SHARD = 256  # clips in a file: what a killed run loses at most
Nbest = list[tuple[list[int], float]]  # texts as tokens, and their probabilities, which add up to 1
Teach = Callable[[int], tuple[Tensor, Nbest]]  # number of the clip -> (N, V) log-probabilities, the best texts


@dataclass(frozen=True)
class Origin:
    """What a cache was made of; another one is another cache."""

    teacher: str  # hash of the model's folder
    clips: str  # hash of the decoded clips
    given: str  # modalities the teacher was given: "av", "a" or "v"
    vocabulary: int
    kept: int  # tokens a step
    nbest: int


class Posteriors:
    """Random access to what the teacher said to each clip."""

    def __init__(self, folder: Path) -> None:
        found = json.loads((folder / "origin.json").read_text())
        self.origin = Origin(**found["origin"])
        self._shards = [_Shard.open(folder, number) for number in range(-(-found["clips"] // SHARD))]

    def log_probs(self, index: int) -> Tensor:
        """(N, V) of one clip."""
        shard, place = self._shards[index // SHARD], index % SHARD
        steps = slice(shard.starts[place], shard.starts[place + 1])
        return expand(shard.tokens[steps], shard.log_probs[steps], self.origin.vocabulary)

    def texts(self, index: int) -> Nbest:
        return [(tokens, weight) for tokens, weight in self._shards[index // SHARD].texts[index % SHARD]]


def cache_posteriors(teach: Teach, count: int, origin: Origin, folder: Path, progress: Progress) -> Posteriors:
    """Ask the teacher about clips 0 … count - 1, unless that was done; a killed run goes on behind its last shard."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "origin.json"
    if note.exists() and json.loads(note.read_text()) != {"origin": asdict(origin), "clips": count}:
        raise EdgeavError(f"{folder}: holds the posteriors of another teacher or of other clips. Delete it, run again")
    note.write_text(json.dumps({"origin": asdict(origin), "clips": count}))
    starts = range(0, count, SHARD)
    for number, start in enumerate(progress.track(starts, "posteriors of the teacher", len(starts))):
        if not (folder / f"{number:05d}.json").exists():
            answers = [teach(index) for index in range(start, min(count, start + SHARD))]
            _Shard.write(folder, number, answers, origin.kept)
    return Posteriors(folder)


def clips_hash(clips: DecodedClips) -> str:
    """Stands for decoded clips: their list, and the sums of the bytes of about 1,000 of them."""
    rows = json.loads((clips.folder / ROWS).read_text())
    picked = range(0, len(clips), max(1, len(clips) // 1000))
    sums = [[0 if x is None else int(np.asarray(x).view(np.uint8).sum()) for x in _arrays(clips, i)] for i in picked]
    return digest([rows, sums])


def shorten(log_probs: Tensor, kept: int) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
    """(N, V) -> tokens (N, k), most probable first; (N, k + 1) log-probabilities, the last of all others together."""
    best, tokens = log_probs.double().topk(kept, dim=-1)
    rest = torch.log((1 - best.exp().sum(-1, keepdim=True)).clamp(min=1e-6))  # less is nothing to float16
    return tokens.numpy().astype(np.int32), torch.cat([best, rest], -1).numpy().astype(np.float16)


def expand(tokens: NDArray[np.int32], log_probs: NDArray[np.float16], vocabulary: int) -> Tensor:
    """What `shorten` made -> (N, V), the rest spread evenly over the tokens that were not kept."""
    values = torch.from_numpy(np.asarray(log_probs, dtype=np.float32))
    others = vocabulary - tokens.shape[1]
    share = values[:, -1:] - float(np.log(max(1, others)))
    whole = share.expand(-1, vocabulary).scatter(
        1, torch.from_numpy(np.asarray(tokens, dtype=np.int64)), values[:, :-1]
    )
    return whole.log_softmax(-1)


@dataclass(frozen=True)
class _Shard:
    starts: list[int]  # the first step of each clip, and the end
    texts: list[Nbest]
    tokens: NDArray[np.int32]
    log_probs: NDArray[np.float16]

    @classmethod
    def open(cls, folder: Path, number: int) -> _Shard:
        found = json.loads((folder / f"{number:05d}.json").read_text())
        arrays = [np.load(folder / f"{number:05d}.{name}.npy", mmap_mode="r") for name in ("tokens", "log_probs")]
        return cls(found["starts"], found["texts"], *arrays)

    @staticmethod
    def write(folder: Path, number: int, answers: list[tuple[Tensor, Nbest]], kept: int) -> None:
        short = [shorten(log_probs, kept) for log_probs, _ in answers]
        starts = np.cumsum([0, *(len(tokens) for tokens, _ in short)]).tolist()
        np.save(folder / f"{number:05d}.tokens.npy", np.concatenate([tokens for tokens, _ in short]))
        np.save(folder / f"{number:05d}.log_probs.npy", np.concatenate([values for _, values in short]))
        part = folder / f"{number:05d}.json.part"
        part.write_text(json.dumps({"starts": starts, "texts": [texts for _, texts in answers]}))
        part.rename(folder / f"{number:05d}.json")  # last: its presence says that the arrays are whole


def _arrays(clips: DecodedClips, index: int) -> tuple[NDArray | None, NDArray | None]:
    media = clips.media(index)
    return media.waveform, media.mouth
