"""Run an edgeav bundle with numpy and its engine alone: the whole of what a device needs, on one page.

    python run_bundle.py runs/int8/bundles/NAME                   check it against its golden vectors
    python run_bundle.py runs/int8/bundles/NAME --wav speech.wav  transcribe 16 kHz mono 16-bit sound

Exit code 0 if every file has its hash and every golden vector lies within its tolerance, else 1.
"""

import argparse
import hashlib
import json
import sys
import wave
from pathlib import Path

import numpy as np


def open_model(folder, bundle):
    """A function of the inputs that bundle.json lists, by name -> log_probs."""
    path = str(folder / bundle["model"])
    if bundle["engine"] == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda **inputs: session.run(["log_probs"], inputs)[0]
    if bundle["engine"] == "openvino":
        import openvino

        hint = "bf16" if bundle["precision"] == "bf16" else "f32"
        groups = "32" if bundle["precision"] == "int8-dynamic" else "0"  # of activations that are rounded to 8 bits
        settings = {"INFERENCE_PRECISION_HINT": hint, "DYNAMIC_QUANTIZATION_GROUP_SIZE": groups}
        model = openvino.Core().compile_model(path, "CPU", settings)
        return lambda **inputs: model(inputs)["log_probs"]
    return open_executorch(path, [tensor["name"] for tensor in bundle["inputs"]])


def open_executorch(path, order):
    import torch  # the tensors of ExecuTorch's Python runtime; the C++ runner needs none
    from executorch.runtime import Runtime  # isort: skip  (before the kernels, or they fail with 0x14)
    import executorch.kernels.quantized  # noqa: F401

    program = Runtime.get().load_program(path)

    def run(**inputs):
        forward = program.load_method("forward")  # loaded once; `program` must outlive it
        assert forward is not None
        return forward.execute([torch.tensor(inputs[name]) for name in order])[0].numpy()

    return run


def hear(waveform, features):
    """(S,) -> what the model is fed: (S,) samples or (S // hop, mels) log-mel, normalized over the utterance."""
    audio = features["audio"]
    if audio["kind"] == "samples":
        return (waveform - waveform.mean()) / np.sqrt(waveform.var() + np.float32(1e-8))
    wave = waveform.astype(np.float64)
    emphasized = np.append(wave[:1], wave[1:] - audio["pre_emphasis"] * wave[:-1])
    padded = np.pad(emphasized, audio["n_fft"] // 2, mode="reflect" if audio["padding"] == "reflect" else "constant")
    frames = np.lib.stride_tricks.sliding_window_view(padded, audio["n_fft"])[:: audio["hop"]]
    hann = np.hanning(audio["window"] + (audio["window_function"] == "hann-periodic"))[: audio["window"]]
    left = (audio["n_fft"] - audio["window"]) // 2
    window = np.pad(hann, (left, audio["n_fft"] - audio["window"] - left))
    power = np.abs(np.fft.rfft(frames[: len(waveform) // audio["hop"]] * window)) ** 2
    energies, floor = power @ mel_filters(audio, features["sample_rate_hz"]).T, audio["log_floor"]
    mel = np.log(energies + floor if audio["log_guard"] == "add" else np.maximum(energies, floor))
    if audio["normalize"] == "per-band":
        mel = (mel - mel.mean(axis=0)) / (mel.std(axis=0, ddof=1) + 1e-5)
    return mel.astype(np.float32)


def mel_filters(audio, rate):
    """(mels, n_fft / 2 + 1) triangles on HTK's scale or Slaney's, which is linear below 1 kHz."""
    if audio["mel_scale"] == "htk":
        low, high = (2595 * np.log10(1 + hz / 700) for hz in (audio["low_hz"], audio["high_hz"]))
        edges = 700 * (10 ** (np.linspace(low, high, audio["mels"] + 2) / 2595) - 1)
    else:
        step = np.log(6.4) / 27
        low, high = (
            hz * 3 / 200 if hz < 1000 else 15 + np.log(hz / 1000) / step for hz in (audio["low_hz"], audio["high_hz"])
        )
        mels = np.linspace(low, high, audio["mels"] + 2)
        edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * step))
    if audio["mel_corners"] == "exact":
        low, mid, high = (edges[i : i + audio["mels"], None] * audio["n_fft"] / rate for i in range(3))
    else:
        low, mid, high = (np.floor(edges[i : i + audio["mels"], None] * (audio["n_fft"] + 1) / rate) for i in range(3))
        mid = np.maximum(mid, low + 1)
        high = np.maximum(high, mid + 1)
    bins = np.arange(audio["n_fft"] // 2 + 1)
    triangles = np.maximum(0, np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)))
    return triangles * 2 / (edges[2:] - edges[:-2])[:, None] if audio["mel_norm"] == "area" else triangles


def greedy_text(log_probs, presence, bundle):
    """CTC: the best token of every step that is not padding, repeats merged, blanks dropped."""
    best = np.where(presence[0].any(axis=1), log_probs[0].argmax(axis=1), bundle["blank"])
    first = np.append(True, best[1:] != best[:-1])
    pieces = [bundle["tokens"][token] for token in best[first] if token != bundle["blank"]]
    return " ".join("".join(pieces).replace("▁", " ").split())


def check(folder, bundle, model):
    """Compare files with their hashes and golden vectors with the model's output. -> whether all is well"""
    well = True
    for name, file in bundle["files"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != file["sha256"]:
            print(f"{name}: hash differs: the file is damaged")
            well = False
    for case in bundle["golden"]:
        arrays = {
            name: np.fromfile(folder / file["file"], "<f4").reshape(file["shape"])
            for name, file in case["files"].items()
        }
        log_probs = model(**{tensor["name"]: arrays[tensor["name"]] for tensor in bundle["inputs"]})
        difference = float(np.abs(log_probs - arrays["log_probs"]).max())
        well &= difference <= case["tolerance"]
        text = greedy_text(log_probs, arrays["presence"], bundle)
        print(f"{case['name']}: max abs diff {difference:.2e} (tolerance {case['tolerance']:g}): {text}")
        if text != case["transcript"]:
            print(f"  eager model: {case['transcript']}")
    return well


def transcribe(wav, bundle, model):
    """The text of a 16 kHz mono 16-bit file, without a picture."""
    with wave.open(wav) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (16_000, 1, 2):
            sys.exit(f"{wav}: needs 16 kHz mono 16-bit; edgeav transcribe reads anything")
        waveform = np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(32768)
    if bundle["features"]["audio"] is None:
        sys.exit(f"{wav}: this model reads lips alone")
    sound, rules = hear(waveform, bundle["features"]), bundle["steps"]
    heard = -(-len(sound) // rules["audio_frames"])
    steps = max(heard, rules["min"])
    if steps > rules["max"]:
        sys.exit(f"{wav}: longer than the {rules['max'] / rules['per_second']:g} s the model takes at once")
    feed = {tensor["name"]: np.zeros(sides(tensor["shape"], steps), np.float32) for tensor in bundle["inputs"]}
    feed["mel" if "mel" in feed else "samples"][0, : len(sound)] = sound
    feed["presence"][0, :heard, 0] = 1
    return greedy_text(model(**feed), feed["presence"], bundle)


def sides(shape, steps):
    """["1", "8N", 80] -> (1, 8 * steps, 80)."""
    frames = int(shape[1].removesuffix("N") or 1) * steps
    return (1, frames, *shape[2:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--wav")
    arguments = parser.parse_args()
    bundle = json.loads((arguments.bundle / "bundle.json").read_text("utf-8"))
    if bundle["schema"] != "edgeav-bundle/2":
        sys.exit(f"{arguments.bundle}: unknown schema {bundle['schema']}")
    model = open_model(arguments.bundle, bundle)
    if arguments.wav:
        print(transcribe(arguments.wav, bundle, model))
    elif not check(arguments.bundle, bundle, model):
        sys.exit(1)


if __name__ == "__main__":
    main()
