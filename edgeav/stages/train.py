"""Train on one corpus or a mix of several: a new model from its config, or a trained one further.

Real clips are optional ingredients: where their folder is absent the stage says so and trains on the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from edgeav.catalog import find_model
from edgeav.data.disturbance import MODALITIES, Disturbance, Modality
from edgeav.errors import EdgeavError
from edgeav.spec import Strict
from edgeav.stages.stage import Stage

if TYPE_CHECKING:
    from edgeav.data.corpus import Corpus
    from edgeav.distillation import Schooling
    from edgeav.job import Serving
    from edgeav.run import Run


Share = Annotated[float, Field(ge=0, le=1)]
# Not the recipe's: trainings of other seeds share the altered copies, and a teacher's answers to them.
VARIANTS_SEED = 1


class Ingredient(Strict):
    """One corpus of the mix."""

    corpus: str
    """`demo` or a folder with manifest.jsonl."""
    per_batch: int = Field(ge=1, le=256)
    """Clips of it in the batch of each process."""
    optional: bool = False
    """Leave it out, and say so, where the folder is absent."""
    splice: Share = 0.0
    """Probability that a clip gets words of other clips of its speaker; see edgeav/data/splice.py."""
    trim: Share = 0.0
    """Probability that most of the silence before and after a clip's words is cut; see edgeav/data/draw.py."""
    variants: int = Field(0, ge=0, le=100)
    """So many copies of each clip are spliced and put to other tempos once; 0: anew in every batch."""
    word_times: bool | str = False
    """Clips without word times get them from the model that the stage begins with, or from a trained one that is named;
    see edgeav/data/word_times.py."""
    leave_out: list[str] = Field(default_factory=list)
    """Speakers that are not trained on: they are there to choose settings by, and validated on."""


class Train(Stage):
    """CTC training with frame labels that fade out; see edgeav/losses.py."""

    mix: list[Ingredient] = Field(min_length=1)
    noise: Disturbance = Disturbance()
    """Noise and rooms that the sound is disturbed with; the babble is made of the mix."""
    vocabulary: int = Field(256, ge=16, le=32_000)
    """SentencePiece pieces, learned from the texts of the mix."""
    longest_s: float = Field(3.6, gt=0.5)
    """Longer clips are left out: they would pad every batch they are in."""
    modalities: dict[Modality, Share] = MODALITIES
    """How often a clip that has sound and lips is given with both, as sound alone, as lips alone; adds up to 1."""
    lip_faults: Share = 0.0
    """Probability that the lips that go with a sound are frozen, black, late or partly missing."""
    steps: int = Field(ge=1)
    processes: int = Field(2, ge=1, le=64)
    learning_rate: float = Field(1.2e-3, gt=0, le=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` moves the matrices of the Conformer blocks; see edgeav/optimizers.py."""
    weight_decay: float = Field(0.02, ge=0, le=1)
    warmup: int = Field(150, ge=1)
    flat: float = Field(0.35, ge=0, lt=1)
    """Share of the steps at full rate, before the cosine."""
    fade: float = Field(0.85, gt=0, le=100)
    """The losses on frames fade out over so much of the steps; above 1, something of them is left at the end."""
    inter_ctc_weight: float = Field(0.3, ge=0, le=1)
    """Share of the intermediate CTC losses in CTC, for a model with `inter_ctc`."""
    attention_weight: float = Field(0.9, ge=0, le=1)
    """Share of the attention decoder in the loss on the text, for a model that has one; CTC has the rest."""
    checkpoint_every: int = Field(250, ge=1)
    average_last: int = Field(0, ge=0, le=100)
    """The result is the mean of so many last checkpoints; 0: a moving average over all steps."""
    accumulate: int = Field(1, ge=1, le=1024)
    """Batches of each process in one step: as large a batch as you like, in little memory."""
    precision: Literal["bf16", "fp32"] = "bf16"
    loaders: int = Field(0, ge=0, le=64)
    """Processes that make batches for each training process, for GPUs; 0: a thread does, enough beside a CPU."""
    frozen_norms: bool = False
    """Batch norms keep the statistics they have; for a trained model and batches too small to measure them."""

    @field_validator("modalities")
    @classmethod
    def _adds_up_to_one(cls, shares: dict[str, float]) -> dict[str, float]:
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(f"adds up to {sum(shares.values()):g}, must be 1; like {MODALITIES}")
        return shares

    def apply(self, model_folder: Path, out: Path, run: Run) -> None:
        from edgeav.job import Job, launch
        from edgeav.run import digest, model_hash

        work, seed = run.scratch(type(self).__name__.lower()), run.recipe.seed
        corpora = self._open(run)
        start = self.starting_model(model_folder, corpora, run, work / "initial")
        decoded = {n: run.decoded(n, 0, "train", corpus.train).folder for n, corpus in corpora.items()}
        valid = {n: str(run.decoded(n, 0, "valid", c.valid).folder) for n, c in corpora.items() if c.valid}
        valid |= {f"{n} {speaker}": str(folder) for n, speaker, folder in self._left_out(corpora, run)}
        noise = self.noise.present(run.progress.say)
        ingredients = [item for item in self.mix if item.corpus in corpora]
        tellers = [self.times_from(item, model_folder) for item in ingredients]  # before the first takes its time
        sources = [self._serving(i, decoded[i.corpus], who, run) for i, who in zip(ingredients, tellers, strict=True)]
        school = self.school(model_folder, run, [Path(source.clips) for source in sources])
        models = [model_hash(Path(folder)) for folder in (start, *([school.teacher] if school else []))]
        key = digest([self.model_dump(), noise.model_dump(), seed, models])[:8]
        job = Job(
            folder=str(work / f"job-{key}"),
            model=str(start),
            sources=sources,
            valid=valid,
            acoustics=str(_acoustics(noise, list(decoded.values()), seed, work)),
            noise=noise.model_dump(mode="json"),
            seed=seed,
            school=school,
            **self.model_dump(include={one.name for one in fields(Job)} - {"noise"}),
        )
        for path in launch(job).iterdir():
            path.rename(out / path.name)

    def starting_model(self, model_folder: Path, corpora: Mapping[str, Corpus], run: Run, out: Path) -> Path:
        """A folder with weights, tokens and their tokenizer; made in `out` where `model_folder` has none."""
        return _initial_model(model_folder, corpora, self.vocabulary, run.recipe.seed, out)

    def untrained(self, model_folder: Path, run: Run, out: Path) -> Path:
        """The model that training would begin with, in `out` or where it lies."""
        return self.starting_model(model_folder, self._open(run), run, out)

    def school(self, model_folder: Path, run: Run, clips: Sequence[Path]) -> Schooling | None:
        """Who teaches beside the texts: nobody."""
        return None

    def times_from(self, item: Ingredient, model_folder: Path) -> Path | None:
        """Who tells the word times of a corpus, if any are asked for; EdgeavError for a model without weights."""
        if not item.word_times:
            return None
        folder = find_model(item.word_times) if isinstance(item.word_times, str) else model_folder
        if not (folder / "model.safetensors").is_file():
            raise EdgeavError(
                f"{type(self).__name__.lower()}: mix: word_times of {item.corpus} come from {folder}, which has no"
                " weights; train it first, in a stage before, or name a trained model: word_times: MODEL"
            )
        return folder

    def _serving(self, item: Ingredient, decoded: Path, teller: Path | None, run: Run) -> Serving:
        """What of the corpus is trained on: its clips, or altered copies of them. `teller`: of word times."""
        from edgeav.data.batch import Source
        from edgeav.data.cache import DecodedClips
        from edgeav.data.variants import Variation, vary
        from edgeav.data.word_times import timed
        from edgeav.job import Serving
        from edgeav.run import digest, model_hash

        folder, left_out = decoded, tuple(item.leave_out)
        if teller:
            out = run.scratch("clips") / f"{folder.name}-timed-{digest(model_hash(teller))[:8]}"
            folder = timed(DecodedClips(folder), teller, out, run.progress).folder
        if item.variants:
            clips = DecodedClips(folder)
            source = Source(clips, item.per_batch, self.longest_s, item.splice, left_out, trim=item.trim)
            variation = Variation(item.variants, self.noise.tempo_share, VARIANTS_SEED)
            key = digest([asdict(variation), item.splice, item.trim, left_out, self.longest_s])[:8]
            folder = vary(source, variation, run.scratch("clips") / f"{folder.name}-{key}", run.progress).folder
        varied = item.variants > 0
        return Serving(str(folder), item.per_batch, item.splice, left_out, varied, trim=0.0 if varied else item.trim)

    def _left_out(self, corpora: Mapping[str, Corpus], run: Run) -> Iterator[tuple[str, str, Path]]:
        """(corpus, speaker, decoded clips) of everybody who is not trained on; EdgeavError for an unknown speaker."""
        for item in self.mix:
            for speaker in item.leave_out if item.corpus in corpora else ():
                theirs = [u for u in corpora[item.corpus].train if u.speaker == speaker]
                if not theirs:
                    raise EdgeavError(f"train: mix: leave_out: {item.corpus} has no speaker {speaker!r} to train on")
                yield item.corpus, speaker, run.decoded(item.corpus, 0, f"left-out-{speaker}", theirs).folder

    def _open(self, run: Run) -> dict[str, Corpus]:
        from edgeav.data import BUILT_IN
        from edgeav.data.corpus import open_corpus

        corpora = {}
        for item in self.mix:
            if item.optional and item.corpus not in BUILT_IN and not Path(item.corpus).is_dir():
                run.progress.say(f"train: {item.corpus} is not here; training goes on without it")
                continue
            corpora[item.corpus] = open_corpus(item.corpus)
        if not corpora:
            raise EdgeavError("train: none of the corpora of `mix` is here")
        return corpora


def _initial_model(start: Path, corpora: Mapping[str, Corpus], vocabulary: int, seed: int, out: Path) -> Path:
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


def _acoustics(noise: Disturbance, clips: Sequence[Path], seed: int, work: Path) -> Path:
    """Folder of the noise and rooms for this declaration and these training clips, made once."""
    from edgeav.data.acoustics import build_acoustics
    from edgeav.data.cache import DecodedClips
    from edgeav.data.noise import recording_paths
    from edgeav.run import digest

    folders = [Path(f) for f in (noise.recordings, noise.music, noise.rooms.responses) if f]
    files = [(str(path), path.stat().st_size) for folder in folders for path in recording_paths(folder)]
    key = digest([noise.model_dump(), [path.name for path in clips], files, seed])[:8]
    return build_acoustics(noise, [DecodedClips(path) for path in clips], seed, work / f"acoustics-{key}")
