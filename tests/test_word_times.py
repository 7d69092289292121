"""Word times by forced alignment: where the spikes stand the words stand, and what does not fit stays without."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeav.catalog import find_model
from edgeav.data.cache import DecodedClips, write_clips
from edgeav.data.corpus import Media
from edgeav.data.text import train_tokenizer
from edgeav.data.word_times import REACH_S, align, timed
from edgeav.errors import EdgeavError
from edgeav.models import AVModel, ModelConfig, save_model
from edgeav.models.config import Block, Conv3dDense, DwStriding
from edgeav.progress import Progress
from edgeav.stages.train import Train

TEXTS = ["bin blue at f two now", "lay red by g six soon", "zero oh one"]
TOKENIZER = train_tokenizer(TEXTS * 4, 40)
BLANK = len(TOKENIZER.tokens)
STEP_S = 0.04


def spiky(ids: list[int], places: list[int], steps: int) -> torch.Tensor:
    """(N, V) log-probabilities: sure of each of `ids` at its place, of the blank elsewhere, and never quite sure."""
    logits = torch.zeros(steps, BLANK + 1)
    logits[:, BLANK] = 4.0
    for token, place in zip(ids, places, strict=True):
        logits[place, token] = 7.0
    return logits.log_softmax(-1)


def test_words_stand_where_their_spikes_stand() -> None:
    words = ["lay", "red", "soon"]
    pieces = [TOKENIZER.encode(word) for word in words]
    ids = [token for word in pieces for token in word]
    places = [10 + 8 * i for i in range(len(ids))]
    found = align(spiky(ids, places, 200), words, TOKENIZER, BLANK, STEP_S)
    assert [word for word, _, _ in found] == words
    first = np.cumsum([0, *(len(word) for word in pieces)])
    for number, (_, start, end) in enumerate(found):
        spikes = places[first[number]], places[first[number + 1] - 1] + 1
        assert 0 <= spikes[0] * STEP_S - start <= REACH_S + 1e-9
        assert 0 <= end - spikes[1] * STEP_S <= REACH_S + 1e-9
    assert all(left[2] <= right[1] for left, right in pairwise(found))


def test_a_text_that_is_longer_than_the_clip_gets_no_times() -> None:
    assert align(spiky([], [], 2), TEXTS[0].split(), TOKENIZER, BLANK, STEP_S) == ()


def test_clips_with_times_keep_them_and_the_others_get_theirs_without_a_copy_of_the_sound(tmp_path: Path) -> None:
    block = Block(heads=2, head_width=8, feed_forward=16, feed_forward_2=16, conv_channels=16)
    tiny = ModelConfig(
        width=16,
        audio=DwStriding(channels=8),
        video=Conv3dDense(stem_channels=8, channels=(8,), strides=(2,)),
        blocks=(block,),
        tokens=TOKENIZER.tokens,
    )
    save_model(AVModel(tiny), tmp_path / "model")
    TOKENIZER.save(tmp_path / "model")
    sound, known = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32), (("bin", 0.5, 0.9),)
    (tmp_path / "clips").mkdir()
    write_clips([("a", "bin", Media(sound, None, known)), ("a", TEXTS[1], Media(sound, None))], tmp_path / "clips")
    clips = DecodedClips(tmp_path / "clips")
    found = timed(clips, tmp_path / "model", tmp_path / "timed", Progress())
    assert found.rows[0] == clips.rows[0]
    assert [word for word, _, _ in found.rows[1].words] == TEXTS[1].split()
    assert all(0 <= start < end <= 3.04 for _, start, end in found.rows[1].words)
    assert (tmp_path / "timed" / "sound.i16").samefile(tmp_path / "clips" / "sound.i16")


def stage(word_times: bool | str) -> Train:
    return Train.model_validate({"mix": [{"corpus": "demo", "per_batch": 2, "word_times": word_times}], "steps": 1})


def test_a_model_that_has_learned_nothing_tells_no_times(tmp_path: Path) -> None:
    asks = stage(True)
    with pytest.raises(EdgeavError, match=r"word_times of demo .* no weights"):
        asks.times_from(asks.mix[0], tmp_path)


def test_word_times_come_from_the_model_that_is_named_or_the_one_that_the_stage_begins_with(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    named, begun, none = stage("av-fast-conformer-demo"), stage(True), stage(False)
    assert named.times_from(named.mix[0], tmp_path) == find_model("av-fast-conformer-demo")
    assert begun.times_from(begun.mix[0], tmp_path) == tmp_path
    assert none.times_from(none.mix[0], tmp_path) is None
