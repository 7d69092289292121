"""What a training run says while it runs: a line on stderr, one in metrics.jsonl, and curves for TensorBoard.

To look at the curves: `tensorboard --logdir runs`. It is optional: without it metrics.jsonl has the same numbers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeav.data.cache import DecodedClips
from edgeav.measure import recognizer, word_error_rate
from edgeav.models import AVModel

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Metrics:
    """Means over every `every` steps of a run of `steps`, which begins, or goes on, at step `first`."""

    def __init__(self, folder: Path, steps: int, first: int, every: int) -> None:
        self.folder, self.steps, self.first, self.every = folder, steps, first, every
        self.start, self.sums, self.count, self.waited_s = time.monotonic(), {}, 0, 0.0
        self.curves = self._tensorboard()

    def step(self, step: int, losses: Mapping[str, float], waited_s: float) -> None:
        """The losses of one step, and how long the model has waited for batches since the beginning."""
        self.count, self.waited_s = self.count + 1, waited_s
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + loss
        if (step + 1) % self.every == 0 or step + 1 == self.steps:
            self._report(step)
            self.sums, self.count = {}, 0

    def validation(self, step: int, name: str, rates: Mapping[str, float]) -> None:
        """The WER on the clips `name`, by what the model was given."""
        self._say(f"step {step + 1} {name} WER " + " ".join(f"{given} {wer:.1f}" for given, wer in rates.items()))
        self._write({"step": step + 1, "valid": name, **rates}, f"wer/{name}", rates)

    def close(self) -> None:
        if self.curves:
            self.curves.close()

    def _report(self, step: int) -> None:
        means = {name: total / self.count for name, total in self.sums.items()}
        spent_s = time.monotonic() - self.start
        rate, waited = (step + 1 - self.first) / spent_s, self.waited_s / spent_s
        values, left_min = " ".join(f"{n} {v:.4g}" for n, v in means.items()), (self.steps - step - 1) / rate / 60
        self._say(f"step {step + 1}/{self.steps} {values} {rate:.2f} steps/s, {left_min:.0f} min left")
        speed = {"steps_per_second": rate, "loading_share": waited}
        self._write({"step": step + 1, **means, **speed}, "training", means | speed)

    def _tensorboard(self) -> SummaryWriter | None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._say(
                "tensorboard is not installed: metrics.jsonl alone. For curves: pip install 'edgeav[tensorboard]'"
            )
            return None
        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.first)

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _write(self, row: dict, curve: str, values: Mapping[str, float]) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.curves:
            for name, value in values.items():
                self.curves.add_scalar(f"{curve}/{name}", value, row["step"])
            self.curves.flush()


def validate(model: AVModel, clips: DecodedClips) -> dict[str, float]:
    """Greedy WER in percent: sound with lips (av), sound alone (a), lips alone (v), as far as the model takes them."""
    speech, takes, rates = recognizer(model), model.config.inputs, {}
    for given in ("av", "a", "v") if takes.audio and takes.video else ("a",) if takes.audio else ("v",):
        references, texts = [], []
        for index in range(len(clips)):
            media = clips.media(index)
            sound, mouth = media.waveform if "a" in given else None, media.mouth if "v" in given else None
            texts.append(speech.text(sound, mouth))
            references.append(clips.rows[index].text)
        rates[given] = word_error_rate(references, texts).wer
    return rates
