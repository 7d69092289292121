"""The demo corpus: GRID-grammar sentences spoken by a synthesizer and shown by a drawn mouth, from a seed.

SYNTHETIC, both sound and picture. Test speakers have voices and faces that training never meets: a speaker is a voice
variant, and the face is drawn from the speaker's name. Sentence grammar: Cooke, Barker, Cunningham & Shao 2006.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeav.data.corpus import Corpus, Media, Split, Utterance
from edgeav.data.mouth import articulate, random_face, render, worsen
from edgeav.data.pico import ACCENTS as PICO_ACCENTS
from edgeav.data.pico import PicoVoice, speak_pico
from edgeav.data.speech import Speech, Voice, speak
from edgeav.data.spelled import spelled
from edgeav.runtime.inputs import SAMPLE_RATE_HZ

GRAMMAR = (
    ["bin", "lay", "place", "set"],
    ["blue", "green", "red", "white"],
    ["at", "by", "in", "with"],
    list("abcdefghijklmnopqrstuvxyz"),  # no w: it alone has more than one syllable
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    ["again", "now", "please", "soon"],
)
ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
TRAIN_VOICES = [
    "Alex",
    "Alicia",
    "Andrea",
    "Andy",
    "Annie",
    "Denis",
    "Diogo",
    "Gene",
    "Henrique",
    "Hugo",
    "Jacky",
    "Lee",
    "Marco",
    "Mario",
    "Michael",
    "Mike",
    "Mr",
    "adam",
    "anika",
    "antonio",
    "aunty",
    "belinda",
    "benjamin",
    "boris",
    "caleb",
    "david",
    "ed",
    "edward",
    "f1",
    "f2",
    "f3",
    "grandma",
    "iven",
    "iven3",
    "john",
    "klatt",
    "klatt3",
    "linda",
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "marcelo",
    "max",
    "michel",
    "miguel",
    "norbert",
    "pedro",
    "robert",
    "sandro",
]
VALID_VOICES = ["klatt2", "m8", "travis", "shelby"]
TEST_VOICES = ["f4", "f5", "m6", "m7", "pablo", "paul", "rob", "steph", "steph2", "victor", "zac", "quincy", "klatt4"]
PICO_VOICES = ["pico", "pico-tall", "pico-short"]
SPELLED_SHARE = 0.3  # of the training sentences; the rest follow GRAMMAR


@dataclass(frozen=True)
class Drawn:
    """A clip that is a function of its sentence, voice and seed."""

    text: str
    accent: str
    voice: str  # of espeak-ng; "pico" is the voice that SVOX Pico has for the accent
    seed: int

    def read(self) -> Media:
        lead_s, tail_s = np.random.default_rng([self.seed, 2]).uniform(0.1, 0.9, 2)
        speech = _shifted(self._speech(), float(lead_s))
        duration_s = float(lead_s + tail_s) + len(speech.waveform) / SAMPLE_RATE_HZ
        r = np.random.default_rng([self.seed, 3])
        sound = self._sound(speech.waveform, float(lead_s), duration_s, r)
        return Media(sound, self._lips(speech, duration_s, r), tuple(speech.words))

    def _speech(self) -> Speech:
        r = np.random.default_rng([self.seed, 1])
        pitch, pitch_range = int(np.clip(r.normal(50, 15), 10, 90)), int(r.integers(20, 80))
        if self.voice.startswith("pico"):
            tract = {"pico": 1.0, "pico-tall": 1.12, "pico-short": 0.9}[self.voice] * float(r.uniform(0.97, 1.03))
            return speak_pico(self.text, PicoVoice(self.accent, int(r.integers(75, 120)), pitch + 50, tract), self.seed)
        voice = Voice(f"{self.accent}+{self.voice}", int(r.integers(120, 180)), pitch, pitch_range)
        return speak(self.text, voice, seed=self.seed)

    def _sound(self, speech: np.ndarray, lead_s: float, duration_s: float, r: np.random.Generator) -> np.ndarray:
        """Speech at -26 dB over a noise floor 30 to 50 dB below it, as the quietest real rooms have."""
        spoken = speech * (0.05 / (speech.std() + 1e-6))
        sound = r.standard_normal(round(duration_s * SAMPLE_RATE_HZ), dtype=np.float32)
        sound *= np.float32(0.05 * 10 ** (-r.uniform(30, 50) / 20))
        start = round(lead_s * SAMPLE_RATE_HZ)
        sound[start : start + len(spoken)] += spoken[: len(sound) - start]
        return np.clip(sound, -1, 1)

    def _lips(self, speech: Speech, duration_s: float, r: np.random.Generator) -> np.ndarray:
        face = random_face(zlib.crc32(f"{self.voice} {self.accent}".encode()))
        frames = render(articulate(speech.phonemes, duration_s, r), face, r)
        for frozen in np.flatnonzero(r.random(len(frames)) < 0.02):
            frames[frozen] = frames[max(0, frozen - 1)]  # a camera drops a frame in fifty
        return worsen(frames, r)


def demo_corpus(seed: int = 0) -> Corpus:
    """5,000 train, 100 validation and 300 test utterances; voices and faces of the three are disjoint."""
    train = _utterances("demo-train", 5000, TRAIN_VOICES, ACCENTS, seed)
    valid = _utterances("demo-valid", 100, VALID_VOICES, ACCENTS, seed)
    test = _utterances("demo-test", 300, TEST_VOICES, ACCENTS, seed)
    return Corpus("demo", train, valid, [Split("test", test, synthetic=True, speakers="unseen")])


def pico_corpus(seed: int = 0) -> Corpus:
    """1,500 utterances of another synthesizer, for training alone; apart, because installing it needs a compiler."""
    return Corpus("demo-pico", _utterances("pico-train", 1500, PICO_VOICES, tuple(PICO_ACCENTS), seed), [], [])


def sentence(r: np.random.Generator) -> str:
    return " ".join(str(r.choice(words)) for words in GRAMMAR)


def _shifted(speech: Speech, by_s: float) -> Speech:
    """The same speech with its phonemes and words `by_s` seconds later."""
    phonemes, words = ([(n, a + by_s, b + by_s) for n, a, b in spans] for spans in (speech.phonemes, speech.words))
    return Speech(speech.waveform, phonemes, words)


def _utterances(name: str, count: int, voices: list[str], accents: Sequence[str], seed: int) -> list[Utterance]:
    r = np.random.default_rng([seed, zlib.crc32(name.removeprefix("demo-").encode())])
    out = []
    for index in range(count):
        text = spelled(r) if name.endswith("train") and r.random() < SPELLED_SHARE else sentence(r)
        drawn = Drawn(text, str(r.choice(accents)), str(r.choice(voices)), int(r.integers(2**31)))
        out.append(Utterance(f"{name}-{index:04d}", f"{drawn.voice}/{drawn.accent}", drawn.text, drawn))
    return out
