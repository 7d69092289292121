"""Files that cannot be imported: each is a clear error, no code of theirs runs, and nothing is written."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result
from random_checkpoint import random_checkpoint
from reference_conformer import Sizes
from torch import Tensor

from edgeav.errors import EdgeavError
from edgeav.importers import import_model, imported, nemo

BIAS = "encoder.encoders.0.conv_module.pointwise_cov1.bias"


class Trap:
    """What it leaves in a pickle runs a command when the pickle is opened carelessly."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.evidence}",)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return {name: torch.from_numpy(w) for name, w in random_checkpoint(Sizes()).items()}


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Import what cannot be; the error's text. The folder afterwards holds what it held before."""

    def attempt(source: Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(EdgeavError) as caught:
            import_model(source, tmp_path / "model")
        assert sorted(tmp_path.rglob("*")) == before
        return str(caught.value)

    return attempt


def saved(data: Any, path: Path) -> Path:
    torch.save(data, path)
    return path


def test_missing_extra_and_misshapen_keys_are_all_named_with_what_was_expected(
    weights: dict[str, Tensor], refused: Callable[..., str], tmp_path: Path
) -> None:
    del weights["encoder.after_norm.bias"]
    weights["encoder.frontend.trunk.layer1.0.relu1.weight"] = torch.ones(8)  # of a PReLU front end
    weights[BIAS] = torch.zeros(50)
    weights["ctc.ctc_lo.bias"] = torch.zeros(13, dtype=torch.complex64)
    error = refused(saved(weights, tmp_path / "av.pth"))
    assert "missing encoder.after_norm.bias (24,)" in error
    assert "unexpected encoder.frontend.trunk.layer1.0.relu1.weight (8,)" in error
    assert f"{BIAS} is (50,), expected (48,)" in error
    assert "ctc.ctc_lo.bias holds torch.complex64" in error


def test_of_many_problems_the_first_eight_are_named_and_the_others_counted(
    weights: dict[str, Tensor], refused: Callable[..., str], tmp_path: Path
) -> None:
    renamed = {name.replace("pointwise_cov", "pointwise_conv"): w for name, w in weights.items()}
    lines = refused(saved(renamed, tmp_path / "av.pth")).splitlines()
    wrong = 2 * sum("pointwise_cov" in name for name in weights)  # each is missing and unexpected
    assert len(lines) == 1 + 8 + 1 and lines[-1].strip() == f"… and {wrong - 8} more"


@pytest.mark.parametrize("name", ["ctc.ctc_lo.weight", "encoder.encoders.1.self_attn.pos_bias_u", "fusion.fc1.weight"])
def test_a_missing_key_that_tells_a_size_is_named(
    name: str, weights: dict[str, Tensor], refused: Callable[..., str], tmp_path: Path
) -> None:
    del weights[name]
    assert f"missing {name}" in refused(saved(weights, tmp_path / "av.pth"))


def test_a_size_with_another_number_of_dimensions_is_named(
    weights: dict[str, Tensor], refused: Callable[..., str], tmp_path: Path
) -> None:
    weights["ctc.ctc_lo.weight"] = weights["ctc.ctc_lo.weight"].flatten()
    assert "ctc.ctc_lo.weight is (312,); expected 2 dimensions" in refused(saved(weights, tmp_path / "av.pth"))


def test_an_unknown_layout_names_its_first_keys_and_the_known_layouts(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    error = refused(saved({"backbone.stem.weight": torch.zeros(3)}, tmp_path / "other.pth"))
    assert "unknown layout" in error and "backbone.stem.weight" in error
    assert "encoder.frontend." in error and "proj_encoder." in error


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_named_and_does_not_run(
    zipped: bool, weights: dict[str, Tensor], refused: Callable[..., str], tmp_path: Path
) -> None:
    path, evidence = tmp_path / "trap.pth", tmp_path / "evidence"
    torch.save({**weights, "trap": Trap(evidence)}, path, _use_new_zipfile_serialization=zipped)
    error = refused(path)
    assert "holds code (posix.system), not only weights" in error and "safetensors" in error
    assert not evidence.exists()


def test_code_in_a_nemo_archives_weights_does_not_run_either(refused: Callable[..., str], tmp_path: Path) -> None:
    evidence, checkpoint = tmp_path / "evidence", io.BytesIO()
    torch.save({"trap": Trap(evidence)}, checkpoint)
    path = archive(tmp_path / "trap.nemo", {"model_config.yaml": b"{}", "model_weights.ckpt": checkpoint.getvalue()})
    assert "trap.nemo: model_weights.ckpt: holds code (posix.system)" in refused(path)
    assert not evidence.exists()


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_checkpoint_is_said_to_be_one(
    zipped: bool, share: float, weights: dict[str, Tensor], refused: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "av.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "truncated" in refused(path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.pth", b"<html>404</html>", "neither a zip archive nor a pickle"),
        ("a.pth", b"", "neither a zip archive nor a pickle"),
        ("a.safetensors", b"\x00" * 64, "not a safetensors file"),
        ("a.nemo", b"text", "not a .nemo archive, or truncated"),
        ("a.onnx", b"", "not a known kind of file"),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_none(
    name: str, content: bytes, problem: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert problem in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([1, 2], "holds list"),
        ({"weight": 3}, "weight: int"),
        ({}, "holds dict"),
        ({1: torch.zeros(1)}, "1, which is no text"),
        (torch.zeros(3), "holds Tensor"),
    ],
)
def test_a_checkpoint_without_a_state_dict_says_what_it_holds(
    data: Any, problem: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    error = refused(saved(data, tmp_path / "a.pth"))
    assert problem in error and "expected" in error


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_members_of_an_archive_never_choose_where_they_are_written(refused: Callable[..., str], tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    members = {str(outside): b"evil", "../../outside.txt": b"evil", "../model_config.yaml": b"{}"}
    error = refused(archive(tmp_path / "evil.nemo", members))
    assert "no model_weights.ckpt in the archive" in error and not outside.exists()


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_truncated_nemo_archive_is_said_to_be_one(share: float, refused: Callable[..., str], tmp_path: Path) -> None:
    members = {"model_config.yaml": b"{}", "model_weights.ckpt": bytes(40_000)}
    path = archive(tmp_path / "cut.nemo", members)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "truncated" in refused(path)


def test_a_text_of_an_archive_that_claims_to_be_huge_is_not_read(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nemo, "TEXT_BYTES", 100)
    path = archive(tmp_path / "huge.nemo", {"model_config.yaml": bytes(200), "model_weights.ckpt": b""})
    assert "model_config.yaml claims" in refused(path)


def test_a_folder_without_a_config_and_a_path_to_nothing_say_what_was_expected(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused(tmp_path / "empty")
    assert "no such file" in refused(tmp_path / "nothing.pth")


def test_an_import_never_writes_over_something(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(weights, tmp_path / "av.pth")
    (tmp_path / "model").mkdir()
    import_model(path, tmp_path / "model")  # an empty folder is fine
    with pytest.raises(EdgeavError, match="exists already; choose another folder with --out"):
        import_model(path, tmp_path / "model")


def test_when_the_disk_is_full_nothing_is_left_behind(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(imported, "save_tensors", fail)
    path = saved(weights, tmp_path / "av.pth")
    with pytest.raises(OSError, match="No space left"):
        import_model(path, tmp_path / "model")
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_exits_with_2_and_no_traceback(edgeav: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"no")
    result = edgeav("models", "import", "a.pth")
    assert (result.returncode, result.stdout) == (2, "")
    assert "neither a zip archive nor a pickle" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "models").exists()
