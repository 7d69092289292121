"""WER of a model by corpus split, modality and noise: the table of a model card.

    python benchmarks/demo_wer.py --model av-fast-conformer-demo --data ../shared/data

Greedy decoding in PyTorch, one clip at a time. Noise is babble of training speakers, 0 dB over ACTIVE speech.
Writes benchmarks/results/demo_wer.json and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgeav.catalog import find_model
from edgeav.data import augment
from edgeav.data.corpus import Corpus, Media, Split, open_corpus
from edgeav.data.noise import babble as make_babble
from edgeav.measure import Recognizer, Wer, recognizer, word_error_rate
from edgeav.models import load_model
from edgeav.results import commit
from edgeav.run import versions
from edgeav.runtime.inputs import SAMPLE_RATE_HZ
from edgeav.runtime.machine import machine

RESULT = Path(__file__).parent / "results" / "demo_wer.json"
BABBLE_SECONDS = 120


@dataclass(frozen=True)
class Condition:
    """What the recognizer is given of a clip."""

    name: str
    sound: bool
    lips: bool
    snr_db: float | None = None


CONDITIONS = (
    Condition("sound and lips", True, True),
    Condition("sound", True, False),
    Condition("lips", False, True),
    Condition("sound and lips, 0 dB", True, True, 0.0),
    Condition("sound, 0 dB", True, False, 0.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="av-fast-conformer-demo", help="a name or a model folder")
    parser.add_argument("--data", type=Path, help="a folder that holds grid/ and an4/; without it: synthetic only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(find_model(options.model))
    corpora = [open_corpus("demo")]
    corpora += [open_corpus(str(options.data / name)) for name in ("grid", "an4")] if options.data else []
    babble = _babble(corpora[0])
    rows = []
    for corpus in corpora:
        for split in corpus.tests:
            rows += measure(corpus, split, recognizer(model), babble)
    facts = {"commit": commit(), "versions": versions(), "cpu": machine()["cpu"], "threads": 1, "rows": rows}
    RESULT.write_text(json.dumps({"model": options.model, **facts}, indent=1) + "\n")
    print(table(rows))


def measure(corpus: Corpus, split: Split, speech: Recognizer, babble: np.ndarray) -> list[dict]:
    """One row for every condition that the split's clips allow."""
    clips = [(utterance.text, utterance.media()) for utterance in split.utterances]
    rows = []
    for condition in CONDITIONS:
        usable = [(text, media) for text, media in clips if _has(media, condition)]
        if usable:
            found = _wer(usable, condition, speech, babble)
            kind = {
                "corpus": corpus.name,
                "split": split.name,
                "synthetic": split.synthetic,
                "speakers": split.speakers,
            }
            rows.append(kind | {"condition": condition.name} | found.as_dict())
            print(f"{corpus.name} {split.name} {condition.name}: {found.wer}", file=sys.stderr)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown: a line a split, a column a condition."""
    names = [condition.name for condition in CONDITIONS]
    lines = [f"| corpus, split | speakers | clips | {' | '.join(names)} |", f"|---|---|---:|{'---:|' * len(names)}"]
    for corpus, split in dict.fromkeys((row["corpus"], row["split"]) for row in rows):
        mine = {row["condition"]: row for row in rows if (row["corpus"], row["split"]) == (corpus, split)}
        cells = [
            f"{mine[n]['wer']:.1f} [{mine[n]['low']:.1f}, {mine[n]['high']:.1f}]" if n in mine else "–" for n in names
        ]
        first = next(iter(mine.values()))
        kind = "synthetic, " if first["synthetic"] else "real, "
        lines.append(f"| {corpus} {split} | {kind}{first['speakers']} | {first['utterances']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _has(media: Media, condition: Condition) -> bool:
    return not (condition.sound and media.waveform is None) and not (condition.lips and media.mouth is None)


def _wer(clips: list[tuple[str, Media]], condition: Condition, speech: Recognizer, babble: np.ndarray) -> Wer:
    r, references, texts = np.random.default_rng(0), [], []
    for text, media in clips:
        sound = media.waveform if condition.sound else None
        if sound is not None and condition.snr_db is not None:
            start = int(r.integers(len(babble) - len(sound)))
            sound = augment.add_noise(sound, babble[start : start + len(sound)], condition.snr_db, media.words)
        references.append(text)
        texts.append(speech.text(sound, media.mouth if condition.lips else None))
    return word_error_rate(references, texts)


def _babble(corpus: Corpus) -> np.ndarray:
    """Of training voices: test voices must not be their own noise."""
    voices = [u.media().waveform for u in corpus.calibration(40, seed=7)]
    noise = make_babble([v for v in voices if v is not None], BABBLE_SECONDS, np.random.default_rng(7))
    assert len(noise) == BABBLE_SECONDS * SAMPLE_RATE_HZ
    return noise


if __name__ == "__main__":
    main()
