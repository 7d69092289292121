"""How well a model or a bundle recognizes each split of a corpus, under each of many conditions.

A condition of a split is a step of a run: killed and started again, an evaluation goes on where it was. Every
transcript is kept, so that two systems can be compared on the same clips later.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgeav.data.acoustics import NoiseBank, make_bank
from edgeav.data.cache import DecodedClips
from edgeav.data.conditions import Condition, disturb, possible
from edgeav.data.corpus import Corpus, Familiarity, Split, Utterance, open_corpus
from edgeav.data.disturbance import Disturbance
from edgeav.decoders import Decoder, Language, open_decoder
from edgeav.errors import EdgeavError
from edgeav.measure import blank_rate, blanks, character_error_rate, word_error_rate
from edgeav.progress import Progress
from edgeav.recipe import Recipe
from edgeav.run import Run, Step, corpus_manifest, folder_hash, read_json, write_json
from edgeav.runtime.features import Inputs
from edgeav.subject import Subject
from edgeav.work import training_voices

VALID = "valid"


@dataclass(frozen=True)
class Settings:
    """What is measured. No `splits`: every test split. `limit` clips of each, taken evenly from all of it."""

    conditions: Sequence[Condition]
    decoders: Sequence[str] = ("greedy",)
    splits: Sequence[str] = ()
    limit: int | None = None
    seed: int = 0  # of noise and bursts
    voices: str | None = None  # the corpus whose training clips babble; None: the one that is evaluated
    recordings: Path | None = None  # of noise, for conditions such as a@0dB:recording
    language: Language = field(default_factory=Language)  # without texts: those of the corpus's training clips
    drawing: int = 0  # of a generated corpus: other sentences, held-out voices


def evaluate(
    subject: Subject, corpus: str, settings: Settings, out: Path, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """One row a split, condition and decoder, as plain data; transcripts lie in `out`, by split and condition.

    Conditions that no clip of a split allows (lips, where it has none) give no row. EdgeavError where the model cannot
    take a condition at all, where a split does not exist, and for clips that are longer than the model takes.
    """
    facts = {"name": "evaluation", "model": subject.name, "corpus": corpus, "seed": settings.drawing}
    recipe = Recipe.model_validate(facts)
    work = Evaluation(subject, settings, Run(out, recipe, progress or Progress()))
    work.check()
    steps = [work.step(split, condition) for split in work.splits for condition in settings.conditions]
    return [row for step in steps for row in read_json(work.run.once(step) / "rows.json")]


@dataclass
class Evaluation:
    """One subject on one corpus; what takes long is made when a step that is not done yet asks for it."""

    subject: Subject
    settings: Settings
    run: Run
    _clips: dict[str, DecodedClips] = field(default_factory=dict)
    _noise: dict[str, NoiseBank] = field(default_factory=dict)

    @cached_property
    def decoders(self) -> list[Decoder]:
        language = self.settings.language
        if not language.texts:
            language = replace(language, texts=tuple(u.text for u in self.run.corpus.train))
        return [open_decoder(name, self.subject.recognizer, language) for name in self.settings.decoders]

    @cached_property
    def splits(self) -> list[Split]:
        corpus, wanted = self.run.corpus, self.settings.splits
        there = {split.name: split for split in [*corpus.tests, *_valid(corpus)]}
        unknown = [name for name in wanted if name not in there]
        if unknown:
            raise EdgeavError(f"--split: {', '.join(unknown)}: not in {corpus.name}; allowed: {', '.join(there)}")
        chosen = [there[name] for name in wanted] if wanted else list(corpus.tests)
        return [replace(split, utterances=_evenly(split.utterances, self.settings.limit)) for split in chosen]

    def check(self) -> None:
        """EdgeavError with all that stands against the evaluation, before it begins."""
        features, conditions, wrong = self.subject.recognizer.features, self.settings.conditions, []
        for condition in conditions:
            for wanted, able, verb in (
                (condition.hears, features.audio, "hear"),
                (condition.sees, features.video, "see"),
            ):
                wrong += (
                    [f"condition {condition.name}: {self.subject.name} does not {verb}"] if wanted and not able else []
                )
        if "recording" in {c.noise for c in conditions if c.snr_db is not None} and not self.settings.recordings:
            wrong.append("conditions with noise of recordings need --recordings FOLDER")
        if not conditions or not self.settings.decoders:
            wrong.append("nothing to measure: name at least one condition and one decoder")
        if wrong:
            raise EdgeavError("\n".join(wrong))
        _ = self.decoders, self.splits  # their own errors

    def step(self, split: Split, condition: Condition) -> Step:
        """What its result depends on, and how to find it out."""
        settings = {
            "model": self.subject.key,
            "corpus": [self.run.recipe.corpus, corpus_manifest(self.run.recipe.corpus), self.settings.drawing],
            "clips": [utterance.id for utterance in split.utterances],
            "condition": condition.name,
            "decoders": [[decoder.name, decoder.settings] for decoder in self.decoders],
            "seed": self.settings.seed,
            "noise": self._noise_facts(condition),
        }
        decoders = "+".join(decoder.name for decoder in self.decoders)
        name = f"transcripts/{split.name}/{condition.name.replace(':', '-')}-{decoders}"
        return Step(name, settings, lambda out: self._measure(split, condition, out))

    def _measure(self, split: Split, condition: Condition, out: Path) -> None:
        """Transcripts as JSON lines, and a row for each decoder."""
        clips, found, passes = self._decoded(split), [], self._passes
        for index in self.run.progress.track(range(len(clips)), f"{split.name} {condition.name}"):
            if possible(condition, clips.media(index)):
                found.append(self._recognized(split.utterances[index], condition, clips, index))
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found]
        (out / "transcripts.jsonl").write_text("".join(lines), encoding="utf-8")
        facts = {"split": split.name, "synthetic": split.synthetic, "speakers": split.speakers}
        facts |= {"condition": condition.name}
        facts |= {"passes": round((self._passes - passes) / len(found), 2)} if self.subject.surest and found else {}
        write_json(out / "rows.json", [facts | _row(decoder, found) for decoder in self.decoders if found])

    def _recognized(
        self, utterance: Utterance, condition: Condition, clips: DecodedClips, index: int
    ) -> dict[str, Any]:
        speech, noise = self.subject.recognizer, self._bank(condition)
        disturbed = disturb(clips.media(index), condition, noise, (self.settings.seed, utterance.id))
        inputs = disturbed.inputs(speech.features)
        self._check_length(inputs, utterance)
        log_probs, presence = speech.recognize(inputs), inputs.presence[0]
        texts = {decoder.name: decoder.text(log_probs[0], presence) for decoder in self.decoders}
        facts = {"id": utterance.id, "speaker": utterance.speaker, "reference": utterance.text}
        return facts | {"texts": texts} | blanks(log_probs, inputs, speech.blank)

    @property
    def _passes(self) -> int:
        """How often the model ran so far, where it may read a clip more than once."""
        return self.subject.surest.passes if self.subject.surest else 0

    def _check_length(self, inputs: Inputs, utterance: Utterance) -> None:
        if inputs.steps > self.subject.max_steps:
            rate = self.subject.recognizer.features.steps_per_second
            raise EdgeavError(
                f"clip {utterance.id}: {inputs.steps / rate:.1f} s, {self.subject.name} takes at most"
                f" {self.subject.max_steps / rate:.1f} s. Leave it out of the corpus, or cut it"
            )

    def _decoded(self, split: Split) -> DecodedClips:
        if split.name not in self._clips:
            recipe, part = self.run.recipe, f"{split.name}-{len(split.utterances)}"
            self._clips[split.name] = self.run.decoded(recipe.corpus, recipe.seed, part, split.utterances)
        return self._clips[split.name]

    def _bank(self, condition: Condition) -> NoiseBank:
        """Noise of the condition's kind, of training voices alone; each kind is the same whatever others there are."""
        if condition.snr_db is None:
            return NoiseBank({})
        if condition.noise not in self._noise:
            name = self.settings.voices or self.run.recipe.corpus
            corpus = open_corpus(name) if self.settings.voices else self.run.corpus
            if not corpus.train:
                raise EdgeavError(f"noise: {name} has no training clips to babble; name another corpus with --voices")
            clips = training_voices(self.run, name, corpus)
            folder = str(self.settings.recordings) if condition.noise == "recording" else None
            wanted = Disturbance.model_validate({"share": 1.0, "kinds": {condition.noise: 1.0}, "recordings": folder})
            self._noise[condition.noise] = make_bank(wanted, [clips], self.settings.seed)
        return self._noise[condition.noise]

    def _noise_facts(self, condition: Condition) -> list[Any]:
        if condition.snr_db is None:
            return []
        voices = self.settings.voices or self.run.recipe.corpus
        recordings = self.settings.recordings if condition.noise == "recording" else None
        return [voices, corpus_manifest(voices), folder_hash(recordings) if recordings else None]


def _row(decoder: Decoder, found: list[dict[str, Any]]) -> dict[str, Any]:
    """WER and CER with intervals, kinds of errors, and the share of steps in percent where the blank is best."""
    references, texts = [row["reference"] for row in found], [row["texts"][decoder.name] for row in found]
    cer, low, high = character_error_rate(references, texts)
    rates = asdict(word_error_rate(references, texts)) | {"cer": cer, "cer_low": low, "cer_high": high}
    return {"decoder": decoder.name} | rates | {"blank_rate": blank_rate(found)} | decoder.fit(references)


def _valid(corpus: Corpus) -> list[Split]:
    """The validation clips as a split, if there are any: what settings may be chosen on."""
    speakers, known = ({u.speaker for u in part} for part in (corpus.valid, corpus.train))
    kind: Familiarity = "seen" if speakers <= known else "mixed" if speakers & known else "unseen"
    synthetic = all(split.synthetic for split in corpus.tests)
    return [Split(VALID, corpus.valid, synthetic, kind)] if corpus.valid else []


def _evenly(utterances: Sequence[Utterance], limit: int | None) -> Sequence[Utterance]:
    if limit is None or limit >= len(utterances):
        return utterances
    return [utterances[i] for i in np.linspace(0, len(utterances) - 1, limit).round().astype(int)]
