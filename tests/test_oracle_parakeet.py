"""Our Fast Conformer with CTC against Hugging Face's ParakeetForCTC: saved there, imported here, one padded batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comparisons import Parakeet, presence
from feature_oracles import our_normalized_log_mel, speech_like


@pytest.mark.parametrize("scale_input", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_log_probabilities_are_those_of_hugging_face(bias: bool, scale_input: bool) -> None:
    parakeet = Parakeet(bias, scale_input)
    assert parakeet.difference(parakeet.subject()) <= 1e-5


def test_whole_steps_alone_differ_only_where_the_sound_ends_inside_a_step() -> None:
    """An exported model takes whole steps and is not told the number of frames."""
    parakeet = Parakeet()
    for frames, row in zip(parakeet.FRAMES, parakeet.rows(parakeet.subject(), None), strict=True):
        if frames % 8 == 0:
            assert float(row.max()) <= 1e-5
        else:
            assert float(row[-1].max()) > float(row[:-1].max())


def test_from_sound_to_log_probabilities_we_equal_hugging_face() -> None:
    from transformers import ParakeetFeatureExtractor

    parakeet, waves = Parakeet(), [speech_like(steps * 1280) for steps in (25, 9)]
    features = ParakeetFeatureExtractor()(waves, sampling_rate=16_000, return_tensors="pt")
    mels = [our_normalized_log_mel(wave) for wave in waves]
    padded = torch.from_numpy(np.stack([np.pad(mel, ((0, 200 - len(mel)), (0, 0))) for mel in mels]))
    with torch.inference_mode():
        expected = parakeet.theirs(**features).logits.log_softmax(-1)
        got = parakeet.subject()(padded, torch.empty(0), presence((25, 9)))
    for row, steps in enumerate((25, 9)):
        torch.testing.assert_close(got[row, :steps], expected[row, :steps], atol=1e-4, rtol=0)
