"""The fourth engine: packages for CPUs are PyTorch's answers; for GPUs there is a clear word where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_av import all_kinds, clip, target, tiny_model

from edgeav.errors import EdgeavError
from edgeav.exporters import export
from edgeav.exporters.aoti import check_device, fp8_layers
from edgeav.exporters.parity import compare
from edgeav.exporters.rewrites import deployable
from edgeav.quant.plan import Plan


@pytest.mark.slow
def test_a_package_for_the_cpu_answers_as_pytorch_at_every_length(tmp_path: Path) -> None:
    bundle = export(
        tiny_model(), target("cuda-aoti", "options.device=cpu"), "fp32", [], [(None, clip(16))], tmp_path / "b"
    )
    assert bundle.exported["device"] == "cpu" and bundle.model == "model.pt2"
    assert compare(bundle, tiny_model(), [*all_kinds(), clip(200)]).max_abs < 1e-4


def test_without_a_gpu_the_export_says_so_before_it_traces_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EdgeavError, match=r"no NVIDIA GPU is visible.*options.device=cpu"):
        export(tiny_model(), target("cuda-aoti"), "fp32", [], [], tmp_path)


def test_a_gpu_that_is_too_old_for_fp8_is_named_with_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    check_device("cuda", "bf16")
    with pytest.raises(EdgeavError, match=r"A100 has compute capability 8\.0; FP8 needs 8\.9"):
        check_device("cuda", "fp8-e4m3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    check_device("cuda", "fp8-e4m3")


def test_formats_that_the_engine_lacks_are_refused() -> None:
    with pytest.raises(EdgeavError, match="it can do fp32, bf16, fp8-e4m3"):
        check_device("cpu", "int8")
    with pytest.raises(EdgeavError, match="CPUs have no FP8 kernels"):
        check_device("cpu", "fp8-e4m3")


def test_only_planned_linear_layers_of_sizes_that_tensor_cores_take_become_fp8() -> None:
    layers = fp8_layers(deployable(tiny_model()), Plan(format="fp8-e4m3", keep_float=("feed-forward",)))
    assert "blocks.0.attention.query" in layers  # 48 -> 32
    assert not {"blocks.0.conv.expand"} - layers  # 48 -> 80
    assert "head" not in layers  # 7 outputs
    assert "fusion.up" not in layers  # 96 -> 72
    assert "blocks.0.feed_forward_1.up" not in layers and "video.convs.0" not in layers
