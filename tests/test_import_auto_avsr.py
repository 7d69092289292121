"""Auto-AVSR checkpoints of every layout. That numbers agree: the conformance kit, benchmarks/teacher_reference."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, Result
from random_checkpoint import random_checkpoint
from reference_conformer import Sizes
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgeav.errors import EdgeavError
from edgeav.importers import import_model
from edgeav.models import load_model
from edgeav.runtime.inputs import Mouth, Samples

SIZES = Sizes()
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Layout A, sound and lips."""
    return {name: torch.from_numpy(w) for name, w in random_checkpoint(SIZES).items()}


def one_modality(weights: dict[str, Tensor], layout: str, lips: bool) -> dict[str, Tensor]:
    encoder = "encoder." if lips else "aux_encoder."
    kept = {name: w for name, w in weights.items() if name.startswith((encoder, "decoder.", "ctc."))}
    kept = {name.replace("aux_encoder.", "encoder."): w for name, w in kept.items()}
    if layout == "B":
        moved = {"encoder.frontend.": "frontend.", "encoder.embed.0.": "proj_encoder."}
        for old, new in moved.items():
            kept = {name.replace(old, new): w for name, w in kept.items()}
    return kept


def parameters(weights: dict[str, Tensor]) -> int:
    return sum(w.numel() for name, w in weights.items() if not name.endswith(BUFFERS))


def test_layout_a_with_sound_and_lips_has_the_checkpoints_sizes(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "av.pth")
    found = import_model(tmp_path / "av.pth", tmp_path / "model")
    config = load_model(tmp_path / "model").config
    block = config.audio_blocks[0]
    assert found["parameters"] == parameters(weights)
    assert (config.width, block.heads, block.feed_forward, block.kernel) == (24, 3, 40, 7)
    assert (len(config.audio_blocks), len(config.video_blocks), config.blocks) == (2, 2, ())
    assert (config.vocabulary, config.blank, config.eos, config.decoder is not None) == (13, 0, 12, True)
    assert config.inputs.audio == Samples()
    assert config.inputs.video == Mouth(normalize="fixed", mean=0.421, deviation=0.165)
    assert (config.encoder.activation, config.encoder.norm_epsilon, config.missing) == ("relu", 1e-12, "zeros")
    assert (found["inputs"], found["steps_per_second"]) == (["samples", "video", "presence"], 25)


def test_every_tensor_arrives_once_and_the_fusions_columns_change_sides(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "av.pth")
    import_model(tmp_path / "av.pth", tmp_path / "model")
    ours = load_file(tmp_path / "model" / "model.safetensors")
    sums = [sorted(float(w.double().sum()) for w in side.values()) for side in (ours, weights)]
    assert sums[0] == pytest.approx(sums[1], abs=1e-9)
    lips, sound = weights["fusion.fc1.weight"].chunk(2, dim=1)
    assert torch.equal(ours["fusion.up.weight"], torch.cat([sound, lips], dim=1))


@pytest.mark.parametrize("lips", [True, False])
def test_layouts_a_and_b_of_one_modality_make_the_same_model(
    lips: bool, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    both = []
    for layout in ("A", "B"):
        theirs = one_modality(weights, layout, lips)
        torch.save(theirs, tmp_path / f"{layout}.pth")
        found = import_model(tmp_path / f"{layout}.pth", tmp_path / layout)
        assert found["parameters"] == parameters(theirs)
        assert found["inputs"] == ["video" if lips else "samples", "presence"]
        both.append(load_file(tmp_path / layout / "model.safetensors"))
    assert both[0].keys() == both[1].keys()
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])


def test_a_checkpoint_of_lightning_is_read_with_its_prefix_and_its_arguments(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    state = {f"model.{name}": w for name, w in one_modality(weights, "B", lips=True).items()}
    arguments = argparse.Namespace(modality="video", lr=1e-3)
    torch.save({"state_dict": state, "hyper_parameters": {"args": arguments}, "epoch": 3}, tmp_path / "last.ckpt")
    assert import_model(tmp_path / "last.ckpt", tmp_path / "model")["inputs"] == ["video", "presence"]


def test_safetensors_and_checkpoints_of_old_torch_are_read_too(weights: dict[str, Tensor], tmp_path: Path) -> None:
    theirs = one_modality(weights, "B", lips=False)
    torch.save(theirs, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(theirs, tmp_path / "new.safetensors")
    for name in ("old.pt", "new.safetensors"):
        import_model(tmp_path / name, tmp_path / f"from-{name}")
        stored = load_file(tmp_path / f"from-{name}" / "model.safetensors")
        assert torch.equal(stored["head.weight"], weights["ctc.ctc_lo.weight"])


def test_units_name_the_tokens_between_the_blank_and_the_end(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "av.pth")
    pieces = ["<unk>", *(f"▁w{i}" for i in range(10))]
    (tmp_path / "units.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(pieces, start=1)))
    found = import_model(tmp_path / "av.pth", tmp_path / "model", tmp_path / "units.txt")
    assert found["notes"] == []
    assert load_model(tmp_path / "model").config.tokens == ("<blank>", *pieces, "<eos>")


def test_without_units_the_summary_and_the_card_say_that_text_needs_them(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "av.pth")
    found = import_model(tmp_path / "av.pth", tmp_path / "model")
    assert "text needs --units" in found["notes"][0]
    assert found["notes"][0] in (tmp_path / "model" / "README.md").read_text()
    assert load_model(tmp_path / "model").config.tokens[:3] == ("<blank>", "<unk>", "<unit 2>")


def test_the_command_writes_a_folder_and_prints_what_it_found(
    edgeav: Callable[..., Result], weights: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "teacher.pth")
    result = edgeav("models", "import", "teacher.pth", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["folder"] == "models/teacher" and found["parameters"] == parameters(weights)
    assert load_model(tmp_path / "models" / "teacher").config.width == 24


@pytest.mark.parametrize(("bad", "problem"), [("a 1\nb 3\n", "units.txt:2: 'b 3'"), ("a 1\nb 2\n", "so 11")])
def test_units_that_do_not_fit_are_refused(bad: str, problem: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "av.pth")
    (tmp_path / "units.txt").write_text(bad)
    with pytest.raises(EdgeavError, match=problem):
        import_model(tmp_path / "av.pth", tmp_path / "model", tmp_path / "units.txt")
    assert not (tmp_path / "model").exists()


MEASURED = """
import json, sys, time
from pathlib import Path
from edgeav.importers import import_model
from edgeav.runtime.machine import peak_rss_mb
begin = time.monotonic()
found = import_model(sys.argv[1], Path(sys.argv[2]))
print(json.dumps({"parameters": found["parameters"], "seconds": time.monotonic() - begin, "peak": peak_rss_mb() * 1e6}))
"""


@pytest.mark.slow
def test_the_full_teacher_imports_in_a_minute_and_two_and_a_half_times_its_file(tmp_path: Path) -> None:
    full = Sizes(768, 12, 3072, 31, 12, (64, 128, 256, 512), 8192, 5049)
    weights = {name: torch.from_numpy(w) for name, w in random_checkpoint(full).items()}
    first = {name: w for name, w in weights.items() if name.startswith("decoder.decoders.0.")}
    for block in range(1, 6):  # the small reference has one block in its decoder
        weights |= {name.replace("decoders.0", f"decoders.{block}"): w.clone() for name, w in first.items()}
    path = tmp_path / "teacher.pth"
    torch.save(weights, path)
    del weights, first
    command = [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "model")]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = json.loads(result.stdout)
    assert found["parameters"] == 443_977_138
    assert found["peak"] <= 2.5 * path.stat().st_size
    assert found["seconds"] < 60
