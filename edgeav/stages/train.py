"""Train on one corpus or a mix of several: a new model from its config, or a trained one further.

Real clips are optional ingredients: where their folder is absent the stage says so and trains on the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from edgeav.errors import EdgeavError
from edgeav.spec import Strict
from edgeav.stages.stage import Stage

if TYPE_CHECKING:
    from edgeav.data.corpus import Corpus
    from edgeav.run import Run

NOISE_SECONDS = 600


class Ingredient(Strict):
    """One corpus of the mix."""

    corpus: str
    """`demo` or a folder with manifest.jsonl."""
    per_batch: int = Field(ge=1, le=256)
    """Clips of it in the batch of each process."""
    optional: bool = False
    """Leave it out, and say so, where the folder is absent."""


class Train(Stage):
    """CTC training with frame labels that fade out; see edgeav/losses.py."""

    mix: list[Ingredient] = Field(min_length=1)
    noise: str | None = None
    """A folder of recordings (manifest.jsonl with `path`) to disturb the sound with, beside babble of the mix."""
    noise_share: float = Field(0.7, ge=0, le=1)
    """Probability that a clip's sound is disturbed; it rises to this over the first third of the steps."""
    snr_db: tuple[float, float] = Field((-5.0, 18.0), strict=False)
    """Range of the signal-to-noise ratio, over active speech."""
    vocabulary: int = Field(256, ge=16, le=32_000)
    """SentencePiece pieces, learned from the texts of the mix."""
    longest_s: float = Field(3.6, gt=0.5)
    """Longer clips are left out: they would pad every batch they are in."""
    steps: int = Field(ge=1)
    processes: int = Field(2, ge=1, le=64)
    learning_rate: float = Field(1.2e-3, gt=0, le=1)
    weight_decay: float = Field(0.02, ge=0, le=1)
    warmup: int = Field(150, ge=1)
    flat: float = Field(0.35, ge=0, lt=1)
    """Share of the steps at full rate, before the cosine."""
    inter_ctc_weight: float = Field(0.3, ge=0, le=1)
    """Share of the intermediate CTC losses in CTC, for a model with `inter_ctc`."""
    attention_weight: float = Field(0.9, ge=0, le=1)
    """Share of the attention decoder in the loss on the text, for a model that has one; CTC has the rest."""
    checkpoint_every: int = Field(250, ge=1)

    def apply(self, model_folder: Path, out: Path, run: Run) -> None:
        from edgeav.run import digest, folder_hash
        from edgeav.train import Job, launch

        work, seed = run.scratch("train"), run.recipe.seed
        corpora = self._open(run)
        start = _initial_model(model_folder, corpora, self.vocabulary, seed, work / "initial")
        clips = {n: run.decoded(n, 0, "train", corpus.train).folder for n, corpus in corpora.items()}
        valid = {n: str(run.decoded(n, 0, "valid", c.valid).folder) for n, c in corpora.items() if c.valid}
        per_batch = {item.corpus: item.per_batch for item in self.mix}
        key = digest([self.model_dump(), seed, folder_hash(start)])[:8]
        job = Job(
            folder=str(work / f"job-{key}"),
            model=str(start),
            sources=[(str(folder), per_batch[name]) for name, folder in clips.items()],
            valid=valid,
            noise=str(_noise(clips.values(), self.noise, seed, work / "noise.npy")),
            seed=seed,
            **self.model_dump(exclude={"mix", "noise", "vocabulary"}),
        )
        for path in launch(job).iterdir():
            path.rename(out / path.name)

    def _open(self, run: Run) -> dict[str, Corpus]:
        from edgeav.data.corpus import open_corpus

        corpora = {}
        for item in self.mix:
            if item.optional and item.corpus != "demo" and not Path(item.corpus).is_dir():
                run.progress.say(f"train: {item.corpus} is not here; training goes on without it")
                continue
            corpora[item.corpus] = open_corpus(item.corpus)
        if not corpora:
            raise EdgeavError("train: none of the corpora of `mix` is here")
        return corpora


def _initial_model(start: Path, corpora: dict[str, Corpus], vocabulary: int, seed: int, out: Path) -> Path:
    """`start` itself if it has weights; otherwise its model.json with the tokens of the mix and random weights."""
    import torch

    from edgeav.data.text import train_tokenizer
    from edgeav.models import AVModel, ModelConfig, save_model
    from edgeav.spec import load

    if (start / "model.safetensors").exists():
        return start
    if not (out / "tokenizer.model").exists():
        config = load(ModelConfig, start / "model.json")
        texts = [u.text for corpus in corpora.values() for u in corpus.train]
        tokenizer = train_tokenizer(texts, vocabulary)
        torch.manual_seed(seed)
        save_model(AVModel(config.model_copy(update={"tokens": tokenizer.tokens})), out)
        tokenizer.save(out)
    return out


def _noise(clips: Iterable[Path], folder: str | None, seed: int, out: Path) -> Path:
    """(S,) float32 of babble from the mix, and of the recordings in `folder`, every stretch at level 1."""
    import json

    import numpy as np
    import soundfile

    from edgeav.data.augment import babble
    from edgeav.data.cache import DecodedClips

    if not out.exists():
        r = np.random.default_rng(seed)
        decoded = [DecodedClips(path) for path in clips]
        chosen = [c.media(int(i)).waveform for c in decoded for i in r.permutation(len(c))[:300]]
        parts = [babble([w for w in chosen if w is not None], NOISE_SECONDS, r)]
        if folder and Path(folder).is_dir():
            rows = [json.loads(line) for line in (Path(folder) / "manifest.jsonl").read_text().splitlines()]
            recordings = [soundfile.read(Path(folder) / row["path"], dtype="float32")[0] for row in rows]
            parts += [recording / (recording.std() + 1e-6) for recording in recordings]
        np.save(out, np.concatenate(parts).astype(np.float32))
    return out
