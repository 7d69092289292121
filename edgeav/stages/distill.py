"""Distill: a student learns from the texts and from what a teacher says to the same clips.

An example, as a recipe has it; the student gets the tokens of the teacher:

    model: runs/teacher/01-train
    stages:
      - distill:
          student: {config: {width: 144, inputs: {step_ms: 80}}}
          mix: [{corpus: demo, per_batch: 8}]
          noise: {share: 0.7}          # what the student hears; the teacher hears the clean clip
          steps: 4000
          tolerance: 1

Only lips from a teacher that hears too: `modalities: {lips: 1}`, or a student without `inputs.audio`. What each term is
and who proposed it: edgeav/distillation.py; how the teacher's 25 steps a second become 12.5: edgeav/data/resample.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from edgeav.catalog import find_model
from edgeav.errors import EdgeavError
from edgeav.new_model import NewModel
from edgeav.stages.train import Train

if TYPE_CHECKING:
    from edgeav.data.corpus import Corpus
    from edgeav.distillation import Schooling
    from edgeav.models import ModelConfig
    from edgeav.run import Run


class Distill(Train):
    """Training with a teacher; the settings of `train`, and these."""

    teacher: str | None = None
    """A name from `edgeav models` or a model folder; nothing: the model as the stage before left it."""
    student: str | NewModel | None = None
    """The same, or a new one by `{preset: …, config: {…}}`; nothing: the model as the stage before left it."""
    posteriors: Literal["cached", "online"] = "online"
    """Cached: the teacher runs once over all clips or their `variants`; serves `kl` and `sequence`."""
    kept: int = Field(32, ge=1, le=100_000)
    """Most probable tokens of a step that are cached."""
    teacher_hears: Literal["clean", "noisy"] = "clean"
    """Noisy: what the student hears."""
    pooling: Literal["either", "loudest", "mean"] = "either"
    """How several steps of the teacher become one of the student."""
    ctc_weight: float = Field(1.0, ge=0, le=1000)
    """Of all losses that `train` has."""
    kl_weight: float = Field(1.0, ge=0, le=1000)
    """Of the divergence between the posteriors of each frame."""
    temperature: float = Field(1.0, gt=0, le=100)
    blank_weight: float = Field(0.1, ge=0, le=1)
    """How much a frame counts that is certainly blank to the teacher; one that is certainly not counts 1."""
    tolerance: int = Field(0, ge=0, le=20)
    """Steps that the student may be earlier or later than the teacher."""
    sequence_weight: float = Field(0.0, ge=0, le=1000)
    """Of CTC on the teacher's own texts, by their probabilities."""
    nbest: int = Field(4, ge=1, le=100)
    """Texts of the teacher for each clip."""
    feature_weight: float = Field(0.0, ge=0, le=1000)
    """Of the distance between hidden layers."""
    match: list[Annotated[tuple[int, int], Field(strict=False)]] = Field(default_factory=list)
    """[block of the student, block of the teacher] for `feature_weight`; 0 is the fused input."""

    @model_validator(mode="after")
    def _consistent(self) -> Distill:
        wrong = [text for broken, text in self._problems() if broken]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _problems(self) -> list[tuple[bool, str]]:
        """Whether something is wrong, and what to do about it."""
        return [
            (self.teacher is None and self.student is None, "name a `teacher` or a `student`: else they are the same"),
            (not self._taught, "the teacher has no weight at all"),
            *self._problems_of_asking(),
        ]

    @property
    def _taught(self) -> bool:
        """Whether the teacher has a say in the loss."""
        return bool(self.kl_weight or self.sequence_weight or self.feature_weight)

    def _problems_of_asking(self) -> list[tuple[bool, str]]:
        cached = self.posteriors == "cached"
        altered = [i.corpus for i in self.mix if not i.variants and (i.splice or self.noise.tempo_share)]
        return [
            (
                cached and bool(altered),
                f"posteriors: cached are of clips that stay as they are, and {', '.join(altered)} are spliced or put to"
                " other tempos in every batch; give them variants: 4, or set splice: 0 and noise: {tempo_share: 0},"
                " or posteriors: online",
            ),
            (
                cached and self.teacher_hears == "noisy",
                "teacher_hears: noisy needs posteriors: online; cached ones are of clean clips",
            ),
            (cached and self.feature_weight > 0, "feature_weight needs posteriors: online; no hidden layer is cached"),
            (not cached and self.loaders > 0, "posteriors: online needs loaders: 0; or set posteriors: cached"),
            (self.feature_weight > 0 and not self.match, "feature_weight needs `match`, like [[6, 12]]"),
        ]

    def facts(self) -> dict[str, str]:
        from edgeav.run import model_hash

        named = {"teacher": self.teacher, "student": self.student}
        return {who: model_hash(find_model(name)) for who, name in named.items() if isinstance(name, str)}

    def starting_model(self, model_folder: Path, corpora: Mapping[str, Corpus], run: Run, out: Path) -> Path:
        from edgeav.data.resample import ratio
        from edgeav.data.text import load_tokenizer
        from edgeav.models import ModelConfig
        from edgeav.spec import load

        taught_by = self._teacher(model_folder)
        teacher = load(ModelConfig, taught_by / "model.json")
        start = self._student(model_folder, teacher, taught_by, run.recipe.seed, out)
        student = load(ModelConfig, start / "model.json")
        _check_tokens(teacher, student, load_tokenizer(taught_by).tokens)
        _check_match(self.match, teacher, student)
        ratio(teacher.inputs.step_ms, student.inputs.step_ms)
        return start

    def school(self, model_folder: Path, run: Run, clips: Sequence[Path]) -> Schooling | None:
        from edgeav.distillation import Schooling, Terms

        terms = Terms(
            ctc=self.ctc_weight,
            kl=self.kl_weight,
            sequence=self.sequence_weight,
            features=self.feature_weight,
            temperature=self.temperature,
            blank_weight=self.blank_weight,
            tolerance=self.tolerance,
            match=tuple(self.match),
        )
        teacher = self._teacher(model_folder)
        caches = [self._cache(teacher, folder, run) for folder in clips] if self.posteriors == "cached" else []
        posteriors = tuple(str(folder) for folder in caches)
        return Schooling(str(teacher), terms, posteriors, self.nbest, self.pooling, self.teacher_hears)

    def _teacher(self, model_folder: Path) -> Path:
        folder = model_folder if self.teacher is None else find_model(self.teacher)
        if not (folder / "model.safetensors").is_file():
            raise EdgeavError(f"distill: teacher: {folder} has no weights; train it first, or name a trained model")
        return folder

    def _student(self, before: Path, teacher: ModelConfig, taught_by: Path, seed: int, out: Path) -> Path:
        """The folder of the student, which gets random weights in `out` if it has none."""
        from edgeav.models import ModelConfig
        from edgeav.spec import load

        if isinstance(self.student, NewModel):
            return _new(self.student.described("distill: student.config"), teacher, taught_by, seed, out)
        folder = before if self.student is None else find_model(self.student)
        if (folder / "model.safetensors").is_file():
            return folder
        return _new(load(ModelConfig, folder / "model.json"), teacher, taught_by, seed, out)

    def _cache(self, teacher: Path, clips: Path, run: Run) -> Path:
        """The folder of the teacher's posteriors of these clips, made once."""
        from edgeav.teacher import cache_teacher

        nbest = self.nbest if self.sequence_weight else 0
        place, size = run.scratch("posteriors"), (self.kept, nbest)
        return cache_teacher(teacher, clips, place, size, run.progress, self._cached_in)

    @property
    def _cached_in(self) -> Literal["bf16", "fp32"]:
        """The arithmetic of the teacher whose answers are cached."""
        return self.precision


def _new(config: ModelConfig, teacher: ModelConfig, taught_by: Path, seed: int, out: Path) -> Path:
    """A student with the tokens of the teacher and random weights, in `out`."""
    import torch

    from edgeav.data.text import load_tokenizer
    from edgeav.models import AVModel, save_model

    torch.manual_seed(seed)
    tokens = {"tokens": teacher.tokens, "blank_index": teacher.blank_index}
    save_model(AVModel(config.model_copy(update=tokens)), out)
    load_tokenizer(taught_by).save(out)
    return out


def _check_tokens(teacher: ModelConfig, student: ModelConfig, pieces: Sequence[str]) -> None:
    if tuple(pieces) != teacher.tokens:
        raise EdgeavError("distill: teacher: its tokenizer.model does not have the tokens of its model.json")
    if (student.tokens, student.blank) != (teacher.tokens, teacher.blank):
        raise EdgeavError(
            f"distill: teacher and student must have the same tokens; they have {len(teacher.tokens)} and"
            f" {len(student.tokens)}, of which {len(set(teacher.tokens) & set(student.tokens))} are in both."
            " A new student, `student: {config: {}}`, gets those of the teacher"
        )


def _check_match(match: Sequence[tuple[int, int]], teacher: ModelConfig, student: ModelConfig) -> None:
    ours, theirs = len(student.blocks), len(teacher.blocks)
    wrong = [[place, other] for place, other in match if not (0 <= place <= ours and 0 <= other <= theirs)]
    if wrong:
        raise EdgeavError(f"distill: match: {wrong}: the student has blocks 0 to {ours}, the teacher 0 to {theirs}")
