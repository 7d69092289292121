"""What a model is fed, as data: its clock, how sound becomes log-mel or samples, how a mouth becomes pixels.

model.json and bundle.json hold it, so that training, export and device compute the same features, and a model from
elsewhere brings its own. Plain dataclasses: the device needs no schema library.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from edgeav.errors import EdgeavError

SAMPLE_RATE_HZ = 16_000
VIDEO_FPS = 25
MOUTH = 96  # pixels: side of the square mouth crop that corpora and the face tracker deliver
Readings = Literal["one", "surest"]  # of a clip; see readings.py
MIN_STEPS = 2  # a model takes no less: relative positions need a neighbour


def _demand(*checks: tuple[bool, str]) -> None:
    """ValueError with everything that is wrong; pydantic turns it into an error of the file."""
    wrong = [text for broken, text in checks if broken]
    if wrong:
        raise ValueError("; ".join(wrong))


@dataclass(frozen=True)
class LogMel:
    """(S,) samples -> (T, mels). The defaults are NVIDIA NeMo's Fast Conformer front end."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  read by pydantic where it is installed

    kind: Literal["log-mel"] = "log-mel"
    mels: int = 80
    window: int = 400  # samples: 25 ms
    hop: int = 160  # samples: 10 ms
    n_fft: int = 512
    window_function: Literal["hann-symmetric", "hann-periodic"] = "hann-symmetric"
    mel_scale: Literal["slaney", "htk"] = "slaney"
    mel_norm: Literal["area", "none"] = "area"
    mel_corners: Literal["exact", "bins"] = "exact"  # bins: at bin floor((n_fft + 1) hz / rate), at least 1 apart
    low_hz: float = 0.0  # where the first triangle begins
    high_hz: float = SAMPLE_RATE_HZ / 2  # where the last one ends
    pre_emphasis: float = 0.97
    padding: Literal["zeros", "reflect"] = "zeros"  # n_fft // 2 on both sides
    log_floor: float = 2.0**-24
    log_guard: Literal["add", "clamp"] = "add"  # what log_floor is before the logarithm: added, or the least value
    normalize: Literal["per-band", "none"] = "per-band"  # (x - mean) / (std(ddof=1) + 1e-5) over the utterance

    def __post_init__(self) -> None:
        _demand(
            (min(self.mels, self.hop, self.window) < 1, "mels, hop and window must be at least 1"),
            (self.window > self.n_fft, f"window: {self.window} samples are more than n_fft {self.n_fft}"),
            (not 0 <= self.pre_emphasis < 1, f"pre_emphasis: {self.pre_emphasis} must be in 0..1"),
            (self.log_floor <= 0, f"log_floor: {self.log_floor} must be above 0"),
            (not 0 <= self.low_hz < self.high_hz <= SAMPLE_RATE_HZ / 2, "low_hz < high_hz must be in 0..8000"),
        )


@dataclass(frozen=True)
class Samples:
    """(S,) samples -> (S,), normalized over the utterance: (x - mean) / sqrt(variance + 1e-8), as Auto-AVSR does."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    kind: Literal["samples"] = "samples"


@dataclass(frozen=True)
class Mouth:
    """(T, 96, 96) gray mouth -> (T, crop, crop)."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    crop: int = 88
    normalize: Literal["per-clip", "fixed"] = "per-clip"  # fixed: (x / 255 - mean) / deviation
    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        _demand(
            (not 1 <= self.crop <= MOUTH, f"crop: {self.crop} must be in 1..{MOUTH}"),
            (self.deviation <= 0, f"deviation: {self.deviation} must be above 0"),
        )


@dataclass(frozen=True)
class Features:
    """The inputs of one model. None: the model does not take that modality."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    step_ms: int = 80  # one output frame of the encoder
    audio: LogMel | Samples | None = LogMel()
    video: Mouth | None = Mouth()

    def __post_init__(self) -> None:
        whole = not isinstance(self.audio, LogMel) or self.samples_per_step % self.audio.hop == 0
        _demand((self.audio_frames > 0 and not whole, f"audio.hop: a step of {self.step_ms} ms is no whole number"))

    @property
    def steps_per_second(self) -> float:
        return 1000 / self.step_ms

    @property
    def samples_per_step(self) -> int:
        return SAMPLE_RATE_HZ * self.step_ms // 1000

    @property
    def hop(self) -> int:
        """Samples in one frame of audio; 1 for a model that takes samples or does not hear."""
        return self.audio.hop if isinstance(self.audio, LogMel) else 1

    @property
    def audio_frames(self) -> int:
        """Log-mel frames, or samples, in one step; 0 for a model that does not hear."""
        return 0 if self.audio is None else self.samples_per_step // self.hop

    @property
    def video_frames(self) -> int:
        """Pictures in one step; 0 for a model that does not see."""
        return 0 if self.video is None else VIDEO_FPS * self.step_ms // 1000

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs of the exported model, in order: "mel" or "samples", "video", "presence"."""
        sound = {LogMel: ("mel",), Samples: ("samples",)}.get(type(self.audio), ())
        return (*sound, *(("video",) if self.video else ()), "presence")

    def shapes(self, batch: int, steps: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Of audio, video and presence: (B, T, mels) or (B, S), (B, T, crop, crop), (B, N, 2). No frames where the
        model lacks the modality."""
        mels = (self.audio.mels,) if isinstance(self.audio, LogMel) else ()
        crop = self.video.crop if self.video else 0
        return (
            (batch, self.audio_frames * steps, *mels),
            (batch, self.video_frames * steps, crop, crop),
            (batch, steps, 2),
        )


def settings(features: Features) -> dict[str, Any]:
    """`features` as JSON for bundle.json, for readers in every language. Frames are counted as samples // hop."""
    return {"sample_rate_hz": SAMPLE_RATE_HZ, "video_fps": VIDEO_FPS, "mouth": MOUTH, **asdict(features)}


def features_from_json(data: Any) -> Features:
    """What `settings` wrote. Every key must be there; EdgeavError lists all that is wrong."""
    problems: list[str] = []
    fixed = {"sample_rate_hz": SAMPLE_RATE_HZ, "video_fps": VIDEO_FPS, "mouth": MOUTH}
    if isinstance(data, dict):
        other = {key: data.get(key) for key, value in fixed.items() if data.get(key) != value}
        problems += [f"{key}: {value!r}, must be {fixed[key]}" for key, value in other.items()]
        data = {key: value for key, value in data.items() if key not in fixed}
    features = _read(Features, data, "", problems)
    if isinstance(features, Features):
        problems += _contradictions(features)
    if problems or not isinstance(features, Features):
        raise EdgeavError("\n".join(problems))
    return features


def _contradictions(features: Features) -> list[str]:
    """What the models' own config refuses too."""
    sees, clock = features.video is not None, features.step_ms
    hears = features.audio is not None
    found = [
        (not hears and not sees, "audio and video are both null: nothing to recognize from"),
        (hears and features.audio_frames < 1, f"step_ms: {clock} is shorter than a frame of audio"),
        (sees and (VIDEO_FPS * clock % 1000 != 0 or clock < 1), f"step_ms: {clock} is no whole number of pictures"),
    ]
    return [text for wrong, text in found if wrong]


def _read(kind: type, data: Any, where: str, problems: list[str]) -> Any:
    """A dataclass from JSON, None if that fails; appends to `problems`."""
    if not isinstance(data, dict):
        problems.append(f"{where.rstrip('.') or 'features'}: {data!r}, must be an object")
        return None
    hints = get_type_hints(kind)
    names, before = [field.name for field in fields(kind)], len(problems)
    problems += [f"{where}{name}: missing" for name in names if name not in data]
    problems += [f"{where}{key}: unknown key; allowed: {', '.join(names)}" for key in data if key not in names]
    values = {name: _value(hints[name], data[name], where + name, problems) for name in names if name in data}
    if len(problems) > before:
        return None
    try:
        return kind(**values)
    except ValueError as error:
        problems.append(f"{where}{error}")
        return None


def _value(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    if hint in (int, float):
        numbers = (int,) if hint is int else (int, float)
        if not isinstance(value, numbers) or isinstance(value, bool):
            problems.append(f"{where}: {value!r}, must be {'a whole number' if hint is int else 'a number'}")
        return value
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            problems.append(f"{where}: {value!r}, must be {' or '.join(map(repr, get_args(hint)))}")
        return value
    return _part(get_args(hint), value, where, problems)


def _part(union: tuple[Any, ...], value: Any, where: str, problems: list[str]) -> Any:
    """One of the dataclasses in `union`, told apart by their `kind` where there are several; None is allowed."""
    if value is None:
        return None
    kinds = {getattr(kind, "kind", ""): kind for kind in union if kind is not type(None)}
    found = value.get("kind", "") if isinstance(value, dict) else ""
    if found not in kinds and len(kinds) > 1:
        problems.append(f"{where}.kind: {found!r}, must be {' or '.join(map(repr, kinds))}")
        return None
    return _read(kinds[found] if found in kinds else next(iter(kinds.values())), value, f"{where}.", problems)
