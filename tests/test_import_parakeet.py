"""Fast Conformers from Hugging Face folders, made here. That the numbers agree: test_oracle_parakeet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parakeet_files import PIECES, save_parakeet, stored
from safetensors.torch import save_file

from edgeav.errors import EdgeavError
from edgeav.importers import import_model
from edgeav.models import load_model


@pytest.fixture(scope="module")
def parakeet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random weights, as save_pretrained writes it."""
    return save_parakeet(tmp_path_factory.mktemp("hf") / "parakeet-0.1b")


def _tokenizer(folder: Path, pieces: list[str]) -> None:
    vocabulary = [[piece, 0.0] for piece in pieces]
    tokenizer = {"model": {"type": "Unigram", "vocab": vocabulary}, "added_tokens": [{"id": 12, "content": "<pad>"}]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def _change(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {name: value for name, value in settings.items() if name in config}
    config["encoder_config"] |= {name: value for name, value in settings.items() if name not in config}
    path.write_text(json.dumps(config))


def test_sizes_inputs_and_parameters_are_those_of_the_folder(parakeet: Path, tmp_path: Path) -> None:
    found = import_model(parakeet, tmp_path / "model")
    config = load_model(tmp_path / "model").config
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    counted = sum(w.numel() for name, w in stored(parakeet).items() if not name.endswith(buffers))
    assert found["parameters"] == counted
    assert (config.width, len(config.blocks), config.blocks[0].heads, config.vocabulary) == (24, 2, 3, 13)
    assert (found["inputs"], found["steps_per_second"], config.blank) == (["mel", "presence"], 12.5, 12)
    assert config.inputs.video is None and not config.encoder.stream_norm


def test_shards_make_the_same_model_as_one_file(parakeet: Path, tmp_path: Path) -> None:
    shards = save_parakeet(tmp_path / "shards", shard="20KB")
    assert not (shards / "model.safetensors").exists()
    import_model(parakeet, tmp_path / "one")
    import_model(shards, tmp_path / "many")
    one, many = stored(tmp_path / "one"), stored(tmp_path / "many")
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_tokens_come_from_the_tokenizer_and_without_one_the_summary_says_so(parakeet: Path, tmp_path: Path) -> None:
    assert "no tokenizer.json" in import_model(parakeet, tmp_path / "without")["notes"][0]
    named = save_parakeet(tmp_path / "named")
    _tokenizer(named, PIECES)
    assert import_model(named, tmp_path / "with")["notes"] == []
    assert load_model(tmp_path / "with").config.tokens == tuple(PIECES)


def test_a_blank_that_is_not_the_last_output_stays_where_it_is(tmp_path: Path) -> None:
    folder = save_parakeet(tmp_path / "hf")
    _change(folder, pad_token_id=3)
    import_model(folder, tmp_path / "model")
    config = load_model(tmp_path / "model").config
    assert (config.blank, config.vocabulary, config.tokens[3]) == (3, 13, "<blank>")


def test_weights_keep_their_stored_precision(parakeet: Path, tmp_path: Path) -> None:
    folder = save_parakeet(tmp_path / "hf")
    save_file({name: w.bfloat16() if w.is_floating_point() else w for name, w in stored(folder).items()},
              folder / "model.safetensors")  # fmt: skip
    import_model(folder, tmp_path / "model")
    assert {w.dtype for w in stored(tmp_path / "model").values()} == {torch.bfloat16, torch.int64}
    assert {p.dtype for p in load_model(tmp_path / "model").parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("setting", "value"),
    [("hidden_act", "gelu"), ("subsampling_factor", 2), ("subsampling_conv_kernel_size", 5), ("model_type", "whisper")],
)
def test_another_network_is_refused_by_field_value_and_what_is_allowed(
    setting: str, value: Any, parakeet: Path, tmp_path: Path
) -> None:
    folder = save_parakeet(tmp_path / "hf")
    _change(folder, **{setting: value})
    with pytest.raises(EdgeavError, match=rf"{setting}: {value!r} is not supported; allowed: "):
        import_model(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_other_sound_settings_are_taken_over_or_refused(tmp_path: Path) -> None:
    folder = save_parakeet(tmp_path / "hf")
    extractor = {"feature_size": 80, "sampling_rate": 16000, "preemphasis": 0.95, "n_fft": 400, "win_length": 400}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    import_model(folder, tmp_path / "model")
    audio = load_model(tmp_path / "model").config.inputs.audio
    assert (audio.pre_emphasis, audio.n_fft) == (0.95, 400)  # type: ignore[union-attr]
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor | {"sampling_rate": 8000}))
    with pytest.raises(EdgeavError, match="sampling_rate: 8000 is not supported; allowed: 16000"):
        import_model(folder, tmp_path / "other")


def test_a_shard_outside_the_folder_is_not_opened(tmp_path: Path) -> None:
    folder = save_parakeet(tmp_path / "hf", shard="20KB")
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001-of", "../model-00001-of"))
    with pytest.raises(EdgeavError, match="which is not a file in"):
        import_model(folder, tmp_path / "model")
