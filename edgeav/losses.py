"""What training minimizes: CTC on the text, if asked the attention decoder's too, and the word spoken in every frame.

- CTC: Graves et al. 2006 (https://www.cs.toronto.edu/~graves/icml_2006.pdf).
- Intermediate CTC, where the model's `inter_ctc` names blocks: Lee & Watanabe 2021 (https://arxiv.org/abs/2102.03216).
- Attention beside CTC, for a model with a decoder: Kim et al. 2017 (https://arxiv.org/abs/1609.06773); label smoothing:
  Szegedy et al. 2016 (https://arxiv.org/abs/1512.00567).
- The frame losses look at the middle and the last block and at each front end alone. They are faded out, since word
  times are only roughly right. Without them lips take several times longer to be learned.
- Where word times are known, CTC's paths are to keep to them: a token far from its word costs `STRAY` nats. Where a
  token stands is otherwise nobody's concern (Sak et al. 2015, https://arxiv.org/abs/1507.06947, limit delays so).
  Without it a model of sentences of six words writes the first in the first frame and the last in the last, whenever
  they are said: a layout that serves no other sentence, and no student. A loss of its own on tokens out of place was
  too weak: that layout is learned in the first hundred steps and stays. Within CTC the right paths are likely ones.

Each loss is a mean over clips, tokens or frames, whose number differs from batch to batch. So that several processes,
or several small batches one after the other, give the gradient of one large batch, each mean is weighed by its share of
all that is counted in the update (`counts`, `shares`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from edgeav.data.batch import NO_LABEL, Batch
from edgeav.models import AVModel
from edgeav.models.av import convolutions_last

FRAME_WEIGHTS = {"middle": 1.5, "last": 1.0, "sound": 0.5, "lips": 1.0}
STRAY = 5.0  # nats that a token costs in a step in which something else, or nothing, is said
LABEL_SMOOTHING = 0.1  # of the attention decoder, as in Auto-AVSR


@dataclass(frozen=True)
class Mixture:
    """Shares in the loss on the text, each 0..1, where the model has what they weigh."""

    inter_ctc: float = 0.3  # of the intermediate CTC losses; the last block's has the rest
    attention: float = 0.9  # of the attention decoder, as in Auto-AVSR; CTC has the rest


class CtcTraining(nn.Module):
    """A model with the auxiliary heads that only training needs."""

    def __init__(self, model: AVModel, mixture: Mixture | None = None) -> None:
        super().__init__()
        self.model, self.mixture = model, mixture or Mixture()
        there = {"middle": True, "last": True, "sound": model.audio is not None, "lips": model.video is not None}
        convolutions_last(model)
        width, vocabulary = model.config.width, model.config.vocabulary
        self.heads = nn.ModuleDict({name: nn.Linear(width, vocabulary) for name in FRAME_WEIGHTS if there[name]})

    def forward(
        self, batch: Batch, frame_weight: float, shares: Mapping[str, float] | None = None
    ) -> dict[str, Tensor]:
        """The losses, each a scalar; "loss" is the one to minimize. `shares`: of this batch in `counts`, None for 1."""
        losses = weighed(self.losses(batch, *self.encoded(batch)), shares)
        return losses | {"loss": self.total(losses, frame_weight)}

    def counts(self, batch: Batch) -> dict[str, float]:
        """What each loss of this batch is a mean over: how many clips, tokens or frames."""
        clips, config = float(len(batch.steps)), self.model.config
        counts = {"ctc": clips} | ({"inter_ctc": clips} if config.inter_ctc else {})
        if self.model.decoder is not None:
            counts["attention"] = float(len(batch.targets)) + clips  # each text ends in eos
        return counts | {name: float((self._labels(name, batch) != NO_LABEL).sum()) for name in self.heads}

    def encoded(self, batch: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
        """What each front end makes of the batch, and what the trunk makes of that; each (B, N, D)."""
        streams = self._streams(batch)
        return streams, self.model.trunk(streams.get("sound"), streams.get("lips"), batch.presence)

    def losses(self, batch: Batch, streams: dict[str, Tensor], hidden: list[Tensor]) -> dict[str, Tensor]:
        """Each loss alone, as a mean over this batch."""
        logits = self.model.head(hidden[-1])
        views = {"middle": hidden[len(hidden) // 2], "last": hidden[-1], **streams}
        frames = {name: cross_entropy(self.heads[name](v), self._labels(name, batch)) for name, v in views.items()}
        return self._on_text(hidden, logits, batch) | frames

    def total(self, losses: dict[str, Tensor], frame_weight: float) -> Tensor:
        """The losses on the text, mixed, and those on the frames."""
        return self._mixed(losses) + frame_weight * sum(FRAME_WEIGHTS[name] * losses[name] for name in self.heads)

    def _on_text(self, hidden: list[Tensor], logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        model, config = self.model, self.model.config
        stray = astray(self._labels("text", batch), config.blank, config.vocabulary)
        losses = {"ctc": ctc(logits, batch, config.blank, stray)}
        if config.inter_ctc:
            between = [ctc(model.head(hidden[place]), batch, config.blank, stray) for place in config.inter_ctc]
            losses["inter_ctc"] = torch.stack(between).mean()
        if model.decoder is not None:
            given, wanted = decoder_texts(batch, config.eos)
            logits = model.decoder(given, hidden[-1], model.valid(batch.presence))
            losses["attention"] = cross_entropy(logits, wanted, LABEL_SMOOTHING)
        return losses

    def _mixed(self, losses: dict[str, Tensor]) -> Tensor:
        loss = losses["ctc"]
        if "inter_ctc" in losses:
            loss = torch.lerp(loss, losses["inter_ctc"], self.mixture.inter_ctc)
        if "attention" in losses:
            loss = torch.lerp(loss, losses["attention"], self.mixture.attention)
        return loss

    def _labels(self, view: str, batch: Batch) -> Tensor:
        """(B, N): each view is asked only about the steps at which what it sees is there."""
        there = {"sound": batch.presence[..., 0], "lips": batch.presence[..., 1] * batch.lips_fit[:, None]}
        return batch.labels.masked_fill(there.get(view, self.model.valid(batch.presence)[..., 0]) <= 0, NO_LABEL)

    def _streams(self, batch: Batch) -> dict[str, Tensor]:
        """(B, N, D) each, computed only for the rows that have it, zeros elsewhere."""
        model, presence, streams = self.model, batch.presence, {}
        heard = presence[..., 0].any(dim=1).nonzero()[:, 0]
        heard = heard if len(heard) else heard.new_zeros(1)  # every process must touch the same parameters
        if (sound := model.sound(batch.audio[heard], presence[heard])) is not None:
            streams["sound"] = _spread(sound, heard, len(presence))
        if (seen := model.lips(batch.video, presence[batch.video_rows])) is not None:
            streams["lips"] = _spread(seen, batch.video_rows, len(presence))
        return streams


def _spread(stream: Tensor, rows: Tensor, count: int) -> Tensor:
    """(R, N, D) of some rows -> (B, N, D)."""
    return stream.new_zeros(count, *stream.shape[1:]).index_copy(0, rows, stream)


def weighed(losses: dict[str, Tensor], shares: Mapping[str, float] | None) -> dict[str, Tensor]:
    """Each loss times its share; as it is for None."""
    return losses if shares is None else {name: loss * shares[name] for name, loss in losses.items()}


def ctc(logits: Tensor, batch: Batch, blank: int, stray: Tensor | None = None) -> Tensor:
    """(B, N, V) -> the mean negative log-likelihood per target token, in which `stray` (B, N, V) tokens cost more."""
    log_probs = logits.float().log_softmax(-1)
    if stray is not None:
        log_probs = log_probs - STRAY * stray
    log_probs = log_probs.transpose(0, 1)
    return F.ctc_loss(log_probs, batch.targets, batch.steps, batch.target_lengths, blank=blank, zero_infinity=True)


def astray(labels: Tensor, blank: int, vocabulary: int) -> Tensor:
    """(B, N) with -1 for unknown -> (B, N, V): 1 for a token that is not said at that step nor at one beside it.

    0 for the blank, and for all tokens where nothing is known.
    """
    known = labels != NO_LABEL
    said = F.one_hot(labels.masked_fill(~known, blank), vocabulary)
    near = said + F.pad(said[:, 1:], (0, 0, 0, 1)) + F.pad(said[:, :-1], (0, 0, 1, 0))
    near[..., blank] = 1
    return ((near == 0) & known[..., None]).float()


def decoder_texts(batch: Batch, eos: int) -> tuple[Tensor, Tensor]:
    """(B, L+1) twice: what the decoder is given, eos and the text; and what it is to say, the text and eos."""
    texts, end = batch.targets.split(batch.target_lengths.tolist()), batch.targets.new_tensor([eos])
    given = pad_sequence([torch.cat([end, text]) for text in texts], batch_first=True, padding_value=eos)
    wanted = pad_sequence([torch.cat([text, end]) for text in texts], batch_first=True, padding_value=NO_LABEL)
    return given, wanted


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """(B, N, V), (B, N) with -1 for unknown -> mean over the known labels, 0 where there is none."""
    if not bool((labels != NO_LABEL).any()):
        return 0.0 * logits.float().sum()
    flat = logits.float().flatten(0, 1)
    return F.cross_entropy(flat, labels.flatten(), ignore_index=NO_LABEL, label_smoothing=smoothing)
