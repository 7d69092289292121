"""Models: build, save, load, list. A model folder is model.json + model.safetensors (+ tokenizer.model and a card).

Weights are safetensors only: a pickle can run code, so none is ever opened.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edgeav.errors import EdgeavError
from edgeav.models.av import AVModel
from edgeav.models.config import ModelConfig
from edgeav.models.conformer import position_table
from edgeav.runtime.inputs import LogMel
from edgeav.spec import load

__all__ = ["AVModel", "ModelConfig", "load_model", "noise", "random_model", "save_model"]


def load_model(folder: Path) -> AVModel:
    """Rebuild the model that `folder` describes, in evaluation mode."""
    config = load(ModelConfig, folder / "model.json")
    weights = _read_weights(folder / "model.safetensors")
    with torch.device("meta"):  # no memory and no random numbers for what is replaced here
        model = AVModel(config)
    _check_fit(model, weights, folder)
    # Copies: the read tensors are a view of the file, which a training run may write anew.
    copies = {name: w.to(torch.float32 if w.is_floating_point() else w.dtype, copy=True) for name, w in weights.items()}
    model.load_state_dict(copies, assign=True)
    model.positions = position_table((model.positions.shape[1] + 1) // 2, config.width)  # no state dict holds it
    return model.eval()


def save_model(model: AVModel, folder: Path, *, half: bool = False) -> None:
    """Write model.json and model.safetensors. `half` stores float16: the numbers are rounded once, here."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: w.detach().cpu().contiguous() for name, w in model.state_dict().items()}
    if half:
        weights = {name: w.half() if w.is_floating_point() else w for name, w in weights.items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "model.json").write_text(model.config.model_dump_json(indent=1) + "\n")


def random_model(seed: int = 0, config: ModelConfig | None = None) -> AVModel:
    """A small untrained model whose batch norms have seen data: it tests exports, it recognizes nothing."""
    torch.manual_seed(seed)
    model = AVModel(config or ModelConfig(tokens=("▁a", "▁b", "c", "▁d"), blocks=ModelConfig().blocks[:2]))
    _settle_norms(model)
    return model.eval()


def noise(config: ModelConfig, steps: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Complete inputs of deviation 1 for `steps` steps; empty tensors for what the model does not take."""
    inputs = config.inputs
    mels = (inputs.audio.mels,) if isinstance(inputs.audio, LogMel) else ()
    crop = inputs.video.crop if inputs.video else 0
    audio = torch.randn(batch, inputs.audio_frames * steps, *mels)
    return audio, torch.randn(batch, inputs.video_frames * steps, crop, crop), torch.ones(batch, steps, 2)


def _settle_norms(model: AVModel) -> None:
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.6, 1.4)
        torch.nn.init.normal_(norm.bias, 0, 0.2)
        norm.momentum = None  # a plain average over the batches below
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(*noise(model.config, steps=10, batch=2))


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise EdgeavError(f"{path}: no such file. A model folder holds model.json and model.safetensors")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise EdgeavError(f"{path}: not a safetensors file, or truncated ({error}). Copy it again") from error


def _check_fit(model: AVModel, weights: dict[str, torch.Tensor], folder: Path) -> None:
    wanted = {name: tuple(w.shape) for name, w in model.state_dict().items()}
    found = {name: tuple(w.shape) for name, w in weights.items()}
    problems = [f"missing {name} {wanted[name]}" for name in wanted if name not in found]
    problems += [f"unexpected {name} {found[name]}" for name in found if name not in wanted]
    problems += [
        f"{name} is {found[name]}, model.json asks for {wanted[name]}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    if problems:
        shown = "\n  ".join(problems[:8]) + (f"\n  … and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise EdgeavError(f"{folder}: model.safetensors does not fit model.json:\n  {shown}")
