"""An exported bundle is complete, answers like the model it was made from, and says so when it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_av import OURS, TOKENS, all_kinds, calibration, clip, target, tiny_model

from edgeav.errors import EdgeavError
from edgeav.exporters import export
from edgeav.exporters.parity import compare
from edgeav.models import AVModel
from edgeav.runtime.bundle import Bundle, read_bundle
from edgeav.runtime.engines import open_engine
from edgeav.runtime.features import model_inputs


@pytest.fixture(scope="module")
def model() -> AVModel:
    return tiny_model()


@pytest.fixture(scope="module")
def bundle(model: AVModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    waveform = np.random.default_rng(0).standard_normal(16 * 1280).astype(np.float32) * 0.1
    golden = [(waveform, model_inputs(waveform, None, OURS)), (None, clip(16, seed=8))]
    return export(model, target("onnxruntime"), "fp32", [], golden, tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def int8_bundle(model: AVModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("int8")
    return export(model, target("onnxruntime"), "int8", calibration(), [(None, clip(16, seed=8))], folder)


def test_a_float_bundle_is_within_a_thousandth_of_eager_pytorch(model: AVModel, bundle: Bundle) -> None:
    parity = compare(bundle, model, all_kinds())
    assert parity.max_abs <= 1e-3
    assert parity.transcripts_equal
    assert parity.lengths == [2, 13, 17, 29, 31, 60]


def test_padding_is_not_compared_and_does_not_change_the_rest(model: AVModel, bundle: Bundle) -> None:
    alone, padded = compare(bundle, model, [clip(20, seed=5), clip(20, seed=5, padding=9)]).rows
    assert (alone.steps, alone.valid_steps) == (20, 20)
    assert (padded.steps, padded.valid_steps) == (29, 20)
    engine = open_engine(bundle)
    first, second = engine.run(*clip(20, seed=5)), engine.run(*clip(20, seed=5, padding=9))
    np.testing.assert_allclose(first, second[:, :20], atol=1e-4)


def test_a_changed_model_is_noticed(bundle: Bundle) -> None:
    other = tiny_model()
    with torch.no_grad():
        other.head.bias[0] += 0.05
    assert compare(bundle, other, [clip(9)]).max_abs > 1e-3


def test_a_bundle_describes_its_inputs_and_tokens(bundle: Bundle) -> None:
    assert [entry["shape"] for entry in bundle.inputs] == [["1", "8N", 80], ["1", "2N", 88, 88], ["1", "N", 2]]
    assert bundle.tokens == list(TOKENS)
    assert bundle.blank == len(TOKENS)
    assert bundle.steps.max == 200
    assert {"edgeav", "torch", "onnxruntime", "opset"} <= bundle.exported.keys()


def test_golden_vectors_replay_and_hold_the_waveform_they_began_with(bundle: Bundle, int8_bundle: Bundle) -> None:
    for each in (bundle, int8_bundle):
        engine = open_engine(read_bundle(each.folder))
        for case in each.golden_cases():
            answer = engine.run(case.arrays["mel"], case.arrays["video"], case.arrays["presence"])
            assert np.abs(answer - case.arrays["log_probs"]).max() <= case.tolerance
    heard = bundle.golden_cases()[0]
    np.testing.assert_array_equal(model_inputs(heard.arrays["waveform"], None, OURS).audio, heard.arrays["mel"])


def test_an_int8_bundle_is_smaller_and_says_how_much_of_it_is_integer(bundle: Bundle, int8_bundle: Bundle) -> None:
    assert int8_bundle.size_bytes < 0.6 * bundle.size_bytes  # the graph itself weighs more than this model's weights
    assert int8_bundle.quality["integer_mac_share"] > 0.95
    assert "ONNX Runtime" in int8_bundle.quality["integer_mac_counted"]
    assert bundle.quality == {}


def test_int8_without_calibration_is_refused_before_anything_is_written(model: AVModel, tmp_path: Path) -> None:
    with pytest.raises(EdgeavError, match="calibration"):
        export(model, target("onnxruntime"), "int8", [], [], tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
