"""Auto-AVSR's published code against our models, on the same random weights: every layout, sound, lips and both.

Outside the test suite, because it needs the two public repositories, which carry licenses of their own:

    git clone https://github.com/mpc001/auto_avsr auto_avsr            # layout B: one modality, its HEAD
    git -C auto_avsr worktree add ../auto_avsr_v1 v1.0.0               # layout A as auto_avsr had it: sound and lips
    git clone https://github.com/mpc001/Visual_Speech_Recognition_for_Multiple_Languages vsr       # layout A
    python benchmarks/teacher_reference.py --auto-avsr auto_avsr --auto-avsr-v1 auto_avsr_v1 --vsr vsr

Their model is built at its full size with random weights, saved as a checkpoint, and read by `edgeav models import`.
Their convolutions run over padding, so they get each utterance alone; ours gets them alone and in one padded batch.
The table goes to stdout; exit status 1 if anything differs by more than 1e-4. `pip install six` first.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor, nn

from edgeav.importers import import_model
from edgeav.models import AVModel, load_model
from edgeav.models.presets import Modalities, auto_avsr

TOLERANCE = 1e-4
VOCABULARY = 5049
STEPS = (31, 20)  # two utterances, of 1.24 and 0.8 s
TEXT = torch.tensor([[VOCABULARY - 1, 17, 4000, 3, 17]])  # begins with <eos>, which is also the first token

SETTINGS = {
    "adim": 768, "aheads": 12, "eunits": 3072, "elayers": 12, "dropout_rate": 0.1, "transformer_attn_dropout_rate": 0.1,
    "transformer_encoder_attn_layer_type": "rel_mha", "macaron_style": True, "use_cnn_module": True,
    "cnn_module_kernel": 31, "zero_triu": False, "a_upsample_ratio": 1, "relu_type": "swish", "dunits": 3072,
    "dlayers": 6,
}  # fmt: skip
COMMON = {
    "ddim": 768, "dheads": 12, "lsm_weight": 0.1, "transformer_length_normalized_loss": False, "mtlalpha": 0.1,
    "ctc_type": "builtin", "rel_pos_type": "latest", "report_cer": False, "report_wer": False,
    "fusion_hdim": 8192, "fusion_norm": "batchnorm",
}  # fmt: skip
INPUT_LAYERS = {"audio": "conv1d", "video": "conv3d", "audio-visual": "conv3d"}


@dataclass(frozen=True)
class Case:
    """One published form of the model: where its code is, and how that wants its lips."""

    name: str
    repository: str  # an option of this script
    module: str
    modalities: Modalities
    channels_first: bool  # lips (B, 1, T, H, W), else (B, T, 1, H, W)

    def build(self, folder: Path) -> nn.Module:
        """Their model with random weights and batch norms that are not neutral, in evaluation mode."""
        module = _module(folder, f"espnet.nets.pytorch_backend.{self.module}")
        if self.module == "e2e_asr_conformer" and self.repository == "auto_avsr":
            model = module.E2E(VOCABULARY, self.modalities)
        else:
            aux = {f"aux_{name}": value for name, value in SETTINGS.items()}
            first, second = INPUT_LAYERS[self.modalities], "conv1d"
            model = module.E2E(
                VOCABULARY,
                SimpleNamespace(
                    **SETTINGS, **aux, **COMMON, transformer_input_layer=first, aux_transformer_input_layer=second
                ),
            )
        _randomize(model)
        return model.eval()

    def encode(self, model: nn.Module, samples: Tensor, lips: Tensor) -> Tensor:
        """Their way from (1, S) and (1, T, H, W) to (1, T, 768), at the place where the heads begin."""
        sound, video = samples.unsqueeze(-1), lips.unsqueeze(1 if self.channels_first else 2)
        if self.modalities == "audio-visual":
            both = [model.encoder(video, None)[0], model.aux_encoder(sound, None)[0]]  # type: ignore[operator]
            return model.fusion(torch.cat(both, dim=-1))  # type: ignore[operator]
        x = sound if self.modalities == "audio" else video
        if self.repository == "auto_avsr":
            x = model.proj_encoder(model.frontend(x))  # type: ignore[operator]
        return model.encoder(x, None)[0]  # type: ignore[operator]


CASES = (
    Case("A, sound and lips", "vsr", "e2e_asr_transformer_av", "audio-visual", True),
    Case("A, lips", "vsr", "e2e_asr_transformer", "video", True),
    Case("A, sound", "vsr", "e2e_asr_transformer", "audio", True),
    Case("A, sound and lips, v1.0.0", "auto_avsr_v1", "e2e_asr_conformer_av", "audio-visual", False),
    Case("B, lips", "auto_avsr", "e2e_asr_conformer", "video", False),
    Case("B, sound", "auto_avsr", "e2e_asr_conformer", "audio", False),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("auto-avsr", "auto-avsr-v1", "vsr"):
        parser.add_argument(f"--{option}", type=Path, help="the repository's folder; without it its cases are left out")
    folders = vars(parser.parse_args())
    worst = 0.0
    print("| layout | encoder | CTC | decoder | ours, padded against alone |\n|---|---|---|---|---|")
    for case in CASES:
        if folders[case.repository]:
            differences = compare(case, folders[case.repository])
            print(f"| {case.name} | " + " | ".join(f"{d:.1e}" for d in differences) + " |", flush=True)
            worst = max(worst, *differences)
    return int(worst > TOLERANCE)


@torch.inference_mode()
def compare(case: Case, folder: Path) -> list[float]:
    """Largest differences of encoder output, CTC and decoder log-probabilities, and of ours padded against alone."""
    torch.manual_seed(0)
    theirs = case.build(folder)
    ours = _imported(theirs)
    assert ours.config == auto_avsr(case.modalities, ours.config.tokens), "the preset is not the published model"
    longest = max(STEPS)
    samples, lips = torch.randn(len(STEPS), longest * 640), torch.randn(len(STEPS), longest, 88, 88)
    presence = torch.zeros(len(STEPS), longest, 2)
    worst = [0.0] * 4
    for row, steps in enumerate(STEPS):
        samples[row, steps * 640 :], lips[row, steps:], presence[row, :steps] = 0, 0, 1
    hidden = ours.encode(samples, lips, presence)[-1]
    for row, steps in enumerate(STEPS):
        sound, mouth = samples[row : row + 1, : steps * 640], lips[row : row + 1, :steps]
        alone = ours.encode(sound, mouth, presence[row : row + 1, :steps])[-1]
        expected = case.encode(theirs, sound, mouth)
        differences = [
            _largest(alone, expected),
            _largest(ours.head(alone).log_softmax(-1), theirs.ctc.log_softmax(expected)),  # type: ignore[operator]
            _largest(_ours_decoded(ours, alone), _theirs_decoded(theirs, expected)),
            _largest(hidden[row, :steps], alone[0]),
        ]
        worst = [max(pair) for pair in zip(worst, differences, strict=True)]
    return worst


def _imported(theirs: nn.Module) -> AVModel:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, out = Path(folder, "checkpoint.pth"), Path(folder, "imported")
        torch.save(theirs.state_dict(), checkpoint)
        import_model(checkpoint, out)
        return load_model(out)


def _ours_decoded(model: AVModel, memory: Tensor) -> Tensor:
    assert model.decoder is not None
    return model.decoder(TEXT, memory, torch.ones(1, memory.shape[1], 1)).log_softmax(-1)


def _theirs_decoded(model: nn.Module, memory: Tensor) -> Tensor:
    earlier = torch.ones(1, TEXT.shape[1], TEXT.shape[1]).tril().bool()
    return model.decoder(TEXT, earlier, memory, None)[0].log_softmax(-1)  # type: ignore[operator]


def _module(folder: Path, name: str) -> ModuleType:
    """`name` from the repository in `folder`; the repositories all call their package espnet."""
    for loaded in [name for name in sys.modules if name.split(".")[0] == "espnet"]:
        del sys.modules[loaded]
    sys.path.insert(0, str(folder.resolve()))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@torch.no_grad()
def _randomize(model: nn.Module) -> None:
    """In place. Fresh models have zero biases and neutral norms, which would hide a mistake."""
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            values.uniform_(0.6, 1.6)
        elif name.endswith("running_mean") or (values.ndim == 1 and name.endswith("bias")):
            values.normal_(0, 0.1)
        elif values.ndim == 1 and values.is_floating_point():
            values.uniform_(0.6, 1.4)


def _largest(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max())


if __name__ == "__main__":
    sys.exit(main())
