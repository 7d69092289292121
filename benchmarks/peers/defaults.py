"""What each peer makes of a float32 ONNX file with its defaults. Run by that peer's own Python, which has no edgeav:

    PYTHON benchmarks/peers/defaults.py METHOD SOURCE CLIPS OUT

SOURCE is the ONNX file, CLIPS a folder of calibration clips (one .npz each: the model's inputs by name), OUT the folder
that gets model.onnx, or model.xml and model.bin, and versions.json. Every option that a peer has a default for is left
at it; what it demands is given: clips, and for Optimum a processor (this one: AVX512-VNNI).
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

METHODS = (
    "onnxruntime-dynamic",
    "onnxruntime-static",
    "olive-dynamic",
    "olive-static",
    "optimum-dynamic",
    "optimum-static",
    "nncf-onnx",
    "nncf-openvino",
    "optimum-intel",
)
PACKAGES = ("onnx", "onnxruntime", "olive-ai", "optimum", "optimum-onnx", "optimum-intel", "transformers", "torch")
PACKAGES += ("nncf", "openvino", "numpy")
ONNX, OPENVINO = "model.onnx", "model.xml"
Clip = dict[str, np.ndarray]


def quantize(method: str, source: Path, clips: Path, out: Path) -> None:
    match method:
        case "onnxruntime-dynamic":
            onnxruntime_dynamic(source, out)
        case "onnxruntime-static":
            onnxruntime_static(source, clips, out)
        case "olive-dynamic":
            olive("OnnxDynamicQuantization", {}, source, out)
        case "olive-static":
            olive("OnnxStaticQuantization", olive_data(clips), source, out)
        case "optimum-dynamic":
            optimum(source, None, out)
        case "optimum-static":
            optimum(source, clips, out)
        case "nncf-onnx":
            nncf_onnx(source, clips, out)
        case "nncf-openvino":
            nncf_openvino(source, clips, out)
        case "optimum-intel":
            optimum_intel(source, clips, out)


def onnxruntime_dynamic(source: Path, out: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source, out / ONNX)


def onnxruntime_static(source: Path, clips: Path, out: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = read(clips)

        def get_next(self) -> Clip | None:
            return next(self.rest, None)

    quantize_static(source, out / ONNX, Reader())


def olive_data(clips: Path) -> dict[str, Any]:
    """Olive's word for a data set: (inputs, label) without the batch side, which its loader adds."""
    from olive.data.registry import Registry

    @Registry.register_dataset()
    def edgeav_clips(**_: Any) -> list[tuple[Clip, int]]:
        return [({name: array[0] for name, array in clip.items()}, 0) for clip in read(clips)]

    return {"name": "clips", "load_dataset_config": {"type": "edgeav_clips"}}


def olive(algorithm: str, data: dict[str, Any], source: Path, out: Path) -> None:
    from olive.workflows import run

    options = {"data_config": "clips"} if data else {}
    run(
        {
            "input_model": {"type": "ONNXModel", "model_path": str(source)},
            "data_configs": [data] if data else [],
            "passes": {"int8": {"type": algorithm, **options}},
            "output_dir": str(out / "olive"),
            "cache_dir": str(out / "cache"),
        }
    )
    (made,) = (out / "olive").rglob("*.onnx")
    made.rename(out / ONNX)


def optimum(source: Path, clips: Path | None, out: Path) -> None:
    from onnxruntime.quantization import CalibrationMethod
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig, CalibrationConfig

    quantizer = ORTQuantizer.from_pretrained(source.parent, file_name=source.name)
    settings = AutoQuantizationConfig.avx512_vnni(is_static=clips is not None)
    ranges = None
    if clips is not None:
        data = [{name: array[0] for name, array in clip.items()} for clip in read(clips)]  # it adds the batch side
        calibration = CalibrationConfig("clips", "", "train", len(data), method=CalibrationMethod.MinMax)
        ranges = quantizer.fit(data, calibration, out / "augmented.onnx", settings.operators_to_quantize)
    quantizer.quantize(settings, out, calibration_tensors_range=ranges)
    (out / f"{source.stem}_quantized.onnx").rename(out / ONNX)


def nncf_onnx(source: Path, clips: Path, out: Path) -> None:
    import nncf
    import onnx

    onnx.save(nncf.quantize(onnx.load(source), nncf.Dataset(list(read(clips)))), out / ONNX)


def nncf_openvino(source: Path, clips: Path, out: Path) -> None:
    import nncf
    import openvino

    model = openvino.convert_model(source)
    openvino.save_model(nncf.quantize(model, nncf.Dataset(list(read(clips)))), out / OPENVINO)


def optimum_intel(source: Path, clips: Path, out: Path) -> None:
    """It takes models of transformers; for others there is its class for custom tasks, of an OpenVINO file."""
    import nncf
    import openvino
    from optimum.intel import OVConfig, OVModelForCustomTasks, OVQuantizationConfig, OVQuantizer
    from transformers import PretrainedConfig

    place = out / "float"
    openvino.save_model(openvino.convert_model(source), place / "openvino_model.xml", compress_to_fp16=False)
    quantizer = OVQuantizer.from_pretrained(OVModelForCustomTasks.from_pretrained(place, config=PretrainedConfig()))
    config, data = OVConfig(quantization_config=OVQuantizationConfig()), nncf.Dataset(list(read(clips)))
    quantizer.quantize(ov_config=config, calibration_dataset=data, save_directory=out)
    for made in out.glob("openvino_model.*"):
        made.rename(made.with_stem("model"))


def read(clips: Path) -> Iterator[Clip]:
    for path in sorted(clips.glob("*.npz")):
        with np.load(path) as arrays:
            yield dict(arrays)


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # most peers have few of them
            continue
    return found


def main() -> None:
    source, clips, out = (Path(path).resolve() for path in sys.argv[2:])
    (out / "versions.json").write_text(json.dumps(versions()))
    quantize(sys.argv[1], source, clips, out)


if __name__ == "__main__":
    main()
