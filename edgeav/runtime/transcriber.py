"""A file in, words out: media -> mouth -> features -> engine -> CTC, with the time of each part.

What is not there (a track, a face, some seconds of a face) is told to the model as absent and to the user
in `notes`; there is an answer from whatever is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.runtime.bundle import Bundle, read_bundle
from edgeav.runtime.clip import Clip
from edgeav.runtime.ctc import Word, decode
from edgeav.runtime.engines import open_engine
from edgeav.runtime.inputs import MOUTH, Readings
from edgeav.runtime.readings import Surest
from edgeav.runtime.windows import Window, loudness, plan_windows

if TYPE_CHECKING:
    from edgeav.runtime.face import FaceDetector

PARTS = ("decode", "face", "features", "model", "ctc")
IMPOSSIBLE = -1e4  # log-probability of every label but blank where there was nothing to hear or see


@dataclass(frozen=True)
class Transcript:
    """`timings_ms` has an entry for each of PARTS; `rtf` is their sum over the duration."""

    text: str
    words: list[Word]
    notes: list[str]
    duration_s: float
    timings_ms: dict[str, float]
    rtf: float


@dataclass
class Stopwatch:
    """Milliseconds by part. A part measured inside another is not counted twice."""

    ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        start, before = time.perf_counter(), sum(self.ms.values())
        yield
        inside = sum(self.ms.values()) - before
        self.ms[part] += (time.perf_counter() - start) * 1000 - inside

    def each(self, part: str, items: Iterable[Any]) -> Iterator[Any]:
        """The items, with the time it takes to produce them measured as `part`."""
        iterator, end = iter(items), object()
        while True:
            with self.measure(part):
                item = next(iterator, end)
            if item is end:
                return
            yield item


class Transcriber:
    """A bundle opened once, for any number of files.

    `face_model`: a YuNet .onnx file; None searches faces with OpenCV's Haar cascade. `readings`: see readings.py.
    A model that does not see is not shown the pictures, and no face is searched; one that does not hear ignores sound.
    Raises EdgeavError for a bundle that is damaged, or whose engine is missing.
    """

    def __init__(
        self,
        bundle_folder: str | Path,
        threads: int = 1,
        face_model: str | Path | None = None,
        readings: Readings = "one",
    ) -> None:
        self.bundle = read_bundle(bundle_folder)
        self.engine = open_engine(self.bundle, threads)
        self._surest = Surest(lambda x: self.engine.run(*x), self.bundle.blank) if readings == "surest" else None
        self._threads, self._face_model = threads, face_model
        if face_model is not None:
            _ = self._face_detector  # a wrong path is an error now, not once for every file

    def transcribe(self, path: str | Path) -> Transcript:
        """Any sound or video file. Raises EdgeavError where there is nothing to hear nor to see in it."""
        from edgeav.runtime.media import open_media  # PyAV: not needed for arrays

        watch = Stopwatch()
        with watch.measure("decode"):
            media = open_media(path, hears=self._hears, sees=self._sees)
        clip = Clip(media.waveform, None, np.zeros(0, bool), media.notes, self.bundle.features)
        if media.has_video:
            from edgeav.runtime.mouth import extract_mouth

            with watch.measure("face"):
                mouth = extract_mouth(lambda: watch.each("decode", media.pictures()), self._face_detector)
            if mouth is not None:
                clip.notes.extend(mouth.notes)
                clip.mouth, clip.present = mouth.frames, mouth.present
        return self._transcribe(clip, watch, str(path))

    def transcribe_arrays(self, waveform: NDArray[np.float32] | None, mouth: NDArray[np.uint8] | None) -> Transcript:
        """(S,) samples in [-1, 1] at 16 kHz and (T, 96, 96) gray mouths at 25 fps; either may be None."""
        if waveform is not None and (waveform.ndim != 1 or not np.isfinite(waveform).all()):
            raise EdgeavError(f"waveform: needs (S,) finite samples, got shape {waveform.shape}")
        if mouth is not None and mouth.shape[1:] != (MOUTH, MOUTH):
            raise EdgeavError(f"mouth: needs (T, {MOUTH}, {MOUTH}), got {mouth.shape}")
        sound, lips = waveform if self._hears else None, mouth if self._sees else None
        present = np.ones(0 if lips is None else len(lips), bool)
        return self._transcribe(Clip(sound, lips, present, [], self.bundle.features), Stopwatch(), "the arrays")

    def transcribe_clip(self, clip: Clip, source: str) -> Transcript:
        """A clip that a live source put together, its face perhaps lost on the way; `source` names it in errors."""
        return self._transcribe(clip, Stopwatch(), source)

    @property
    def _hears(self) -> bool:
        return self.bundle.features.audio is not None

    @property
    def _sees(self) -> bool:
        return self.bundle.features.video is not None

    @cached_property
    def _face_detector(self) -> FaceDetector:
        from edgeav.runtime.face import open_face_detector

        return open_face_detector(self._face_model, self._threads)

    def _transcribe(self, clip: Clip, watch: Stopwatch, source: str) -> Transcript:
        clip.drop_what_says_nothing(source)
        rules = self.bundle.steps
        loud = loudness(clip.waveform, clip.steps, clip.features)
        windows = plan_windows(clip.steps, loud, rules.max, rules.per_second)
        if len(windows) > 1:
            longest_s = rules.max / rules.per_second
            clip.notes.append(f"longer than {longest_s:g} s: read in {len(windows)} overlapping windows")
        parts = [self._run(window, clip, watch) for window in windows]
        with watch.measure("ctc"):
            log_probs, presence = (np.concatenate(part) for part in zip(*parts, strict=True))
            text = decode(log_probs, self.bundle.tokens, self.bundle.blank, presence, rules.per_second)
        timings = {part: round(ms, 3) for part, ms in watch.ms.items()}
        rtf = sum(watch.ms.values()) / 1000 / clip.duration_s
        return Transcript(text.text, text.words, clip.notes, round(clip.duration_s, 3), timings, round(rtf, 4))

    def _run(self, window: Window, clip: Clip, watch: Stopwatch) -> tuple[NDArray, NDArray]:
        """One window -> log-probs (K, V) and presence (K, 2) of the steps to keep."""
        with watch.measure("features"):
            inputs = clip.inputs(window.start, window.stop)
        kept = slice(window.keep_start - window.start, window.keep_stop - window.start)
        presence = inputs.presence[0, kept]
        if not inputs.presence.any():
            return _blanks(presence.shape[0], self.bundle), presence
        with watch.measure("model"):
            log_probs = (self._surest(inputs) if self._surest else self.engine.run(*inputs))[0]
        if np.isnan(log_probs).any():
            raise EdgeavError(f"{self.engine.name} {self.engine.version} computed NaN in {self.bundle.folder}")
        if self._surest and self._surest.last != "both":
            first, last = (step / self.bundle.steps.per_second for step in (window.keep_start, window.keep_stop))
            clip.notes.append(f"{first:.1f} to {last:.1f} s: read by {self._surest.last} alone, which is surer")
        return log_probs[kept], presence


def _blanks(steps: int, bundle: Bundle) -> NDArray[np.float32]:
    """(steps, V) log-probabilities that say nothing."""
    log_probs = np.full((steps, bundle.labels), IMPOSSIBLE, np.float32)
    log_probs[:, bundle.blank] = 0
    return log_probs
