"""How far our models are from independent implementations, as numbers: for the oracle tests and the conformance kit.

Each comparison hands out what is ours (`subject`, a fresh one every time, which a fault may then spoil) and measures
how far it is from the reference (`difference`). At most `tolerance` is equal.
"""

from __future__ import annotations

import copy
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from random_checkpoint import random_checkpoint
from reference_conformer import Sizes, Weights, teacher
from torch import Tensor, nn

from edgeav.errors import EdgeavError
from edgeav.importers import import_model
from edgeav.models import AVModel, load_model
from edgeav.runtime.ctc import decode


class Comparison(Protocol):
    @property
    def name(self) -> str:
        """What it compares with, as the docs say it."""
        ...

    @property
    def tolerance(self) -> float: ...

    def subject(self) -> Any: ...

    def difference(self, subject: Any) -> float: ...


def imported(source: Path | str) -> AVModel:
    """The model that our importer makes of `source`."""
    with tempfile.TemporaryDirectory() as folder:
        import_model(source, Path(folder, "model"))
        return load_model(Path(folder, "model"))


def presence(lengths: tuple[int, ...]) -> Tensor:
    """(B, N, 2): both modalities for that many steps of each row, then padding."""
    there = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return there.float().unsqueeze(-1).repeat(1, 1, 2)


class Teacher:
    """Auto-AVSR through our importer against the numpy model of its specification: one padded batch, CTC output."""

    tolerance = 1e-5
    LENGTHS = (7, 5)

    def __init__(self, name: str, loudness: float = 1.0) -> None:
        self.name, self.loudness = name, loudness

    def subject(self) -> AVModel:
        return copy.deepcopy(self._model)

    def difference(self, subject: AVModel) -> float:
        """The largest difference of a log-probability at a real step."""
        samples, lips, there = self._inputs
        with torch.inference_mode():
            got = subject(samples, lips, there).numpy()
        rows = zip(got, self._expected, strict=True)
        return max(float(np.abs(row[: len(expected)] - expected).max()) for row, expected in rows)

    @cached_property
    def _checkpoint(self) -> Weights:
        return random_checkpoint(Sizes(), loudness=self.loudness)

    @cached_property
    def _model(self) -> AVModel:
        with tempfile.TemporaryDirectory() as folder:
            return imported(saved(self._checkpoint, Path(folder)))

    @cached_property
    def _inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        there, steps = presence(self.LENGTHS), max(self.LENGTHS)
        samples = torch.randn(len(there), steps, 640) * there[..., :1]
        return samples.flatten(1), torch.randn(len(there), steps, 88, 88) * there[..., :1, None], there

    @cached_property
    def _expected(self) -> list[np.ndarray]:
        samples, lips, _ = (x.double().numpy() for x in self._inputs)
        rows = zip(samples, lips, self.LENGTHS, strict=True)
        return [teacher(self._checkpoint, s[: 640 * n], v[:n], Sizes().heads) for s, v, n in rows]


def saved(weights: Weights, folder: Path) -> Path:
    path = folder / "checkpoint.pth"
    torch.save({name: torch.from_numpy(w) for name, w in weights.items()}, path)
    return path


class Names:
    """The importer against the names in the specification: how many it complains of."""

    name = "the importer, on the checkpoint's names"
    tolerance = 0.0

    def subject(self) -> Weights:
        return random_checkpoint(Sizes())

    def difference(self, subject: Weights) -> float:
        with tempfile.TemporaryDirectory() as folder:
            try:
                imported(saved(subject, Path(folder)))
            except EdgeavError as error:
                return float(str(error).count("missing ") + str(error).count("unexpected "))
        return 0.0


class Parakeet:
    """Our Fast Conformer through our importer against Hugging Face's ParakeetForCTC: one padded batch."""

    name = "`ParakeetForCTC` of transformers"
    tolerance = 1e-5
    FRAMES = (400, 393, 256, 101, 17, 8)  # of log-mel; not all of them whole steps of 8

    def __init__(self, bias: bool = True, scale_input: bool = True) -> None:
        self.theirs = random_parakeet(bias, scale_input)
        torch.manual_seed(1)
        self.there = torch.arange(max(self.FRAMES)) < torch.tensor(self.FRAMES)[:, None]
        self.mel = torch.randn(*self.there.shape, 80) * self.there.unsqueeze(-1)
        self.steps = tuple(-(-frames // 8) for frames in self.FRAMES)

    def subject(self) -> AVModel:
        return copy.deepcopy(self._model)

    def difference(self, subject: AVModel) -> float:
        """The largest difference of a log-probability at a real step, with the true number of frames."""
        return max(float(row.max()) for row in self.rows(subject, torch.tensor(self.FRAMES)))

    def rows(self, subject: AVModel, frames: Tensor | None) -> list[Tensor]:
        """(steps, V) absolute differences of each utterance."""
        with torch.inference_mode():
            got = subject(self.mel, torch.empty(0), presence(self.steps), frames)
        difference = (got - self._expected).abs()
        return [row[:steps] for row, steps in zip(difference, self.steps, strict=True)]

    @cached_property
    def _model(self) -> AVModel:
        with tempfile.TemporaryDirectory() as folder:
            self.theirs.save_pretrained(folder)
            return imported(folder)

    @cached_property
    def _expected(self) -> Tensor:
        with torch.inference_mode():
            return self.theirs(self.mel, attention_mask=self.there).logits.log_softmax(-1)


def random_parakeet(bias: bool, scale_input: bool) -> Any:
    """Three narrow blocks, random in every tensor: fresh batch norms and biases would hide a mistake."""
    from transformers import ParakeetCTCConfig, ParakeetEncoderConfig, ParakeetForCTC

    torch.manual_seed(0)
    encoder = ParakeetEncoderConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        subsampling_conv_channels=16,
        attention_bias=bias,
        convolution_bias=bias,
        scale_input=scale_input,
    )
    model = ParakeetForCTC(ParakeetCTCConfig(vocab_size=33, pad_token_id=32, encoder_config=encoder)).eval()
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith(("running_var", "weight")) and values.ndim == 1:
            nn.init.uniform_(values, 0.5, 1.5)
        elif values.is_floating_point() and "inv_freq" not in name:
            nn.init.normal_(values, std=0.3 if values.ndim == 1 or "bias" in name else values[0].numel() ** -0.5)
    return model


class Text:
    """Greedy decoding of an imported model against the definition of CTC, blank 0 as Auto-AVSR has it."""

    name = "the definition of CTC"
    tolerance = 0.0

    def subject(self) -> AVModel:
        return AUTO_AVSR.subject()

    def difference(self, subject: AVModel) -> float:
        """1 if the text is another one."""
        log_probs = np.random.default_rng(0).standard_normal((60, Sizes().outputs)).astype(np.float32)
        log_probs[::2, 0] += 3
        tokens = list(subject.config.tokens)
        best, expected = log_probs.argmax(axis=1), []
        for step, output in enumerate(best):
            if output != 0 and (step == 0 or best[step - 1] != output):
                expected.append(tokens[output])
        return float(decode(log_probs, tokens, subject.config.blank).text != "".join(expected))


AUTO_AVSR = Teacher("Auto-AVSR from its specification, in numpy")
QUIET = Teacher("the same, with faint features", loudness=1e-4)
