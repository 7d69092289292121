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
    """A function (mel, video, presence) -> log_probs."""
    path = str(folder / bundle["model"])
    if bundle["engine"] == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda **inputs: session.run(["log_probs"], inputs)[0]
    if bundle["engine"] == "openvino":
        import openvino

        model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
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


def log_mel(waveform, audio):
    """(S,) -> (S // hop, mels), normalized over the utterance; settings from bundle.json."""
    emphasized = np.append(waveform[:1], waveform[1:] - audio["pre_emphasis"] * waveform[:-1])
    padded = np.pad(emphasized.astype(np.float32), audio["n_fft"] // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, audio["n_fft"])[:: audio["hop"]]
    window = np.pad(np.hanning(audio["window"]), (audio["n_fft"] - audio["window"]) // 2)
    power = np.abs(np.fft.rfft(frames[: len(waveform) // audio["hop"]] * window)) ** 2
    mel = np.log(power @ mel_filters(audio).T + audio["log_floor"])
    return ((mel - mel.mean(axis=0)) / (mel.std(axis=0, ddof=1) + 1e-5)).astype(np.float32)


def mel_filters(audio):
    """(mels, n_fft / 2 + 1) triangles of unit area on Slaney's scale, which is linear below 1 kHz."""
    top_mel = 15 + 27 * np.log(audio["sample_rate_hz"] / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, top_mel, audio["mels"] + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    hz = np.linspace(0, audio["sample_rate_hz"] / 2, audio["n_fft"] // 2 + 1)
    return np.maximum(0, np.minimum((hz - low) / (mid - low), (high - hz) / (high - mid))) * 2 / (high - low)


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
        log_probs = model(**{name: arrays[name] for name in ("mel", "video", "presence")})
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
    mel = log_mel(waveform, bundle["audio"])
    rules, side = bundle["steps"], bundle["video"]["crop"]
    steps = max(-(-len(mel) // rules["mel_frames"]), rules["min"])
    if steps > rules["max"]:
        sys.exit(f"{wav}: longer than the {rules['max'] / rules['per_second']:g} s the model takes at once")
    presence = np.zeros((1, steps, 2), np.float32)
    presence[0, : -(-len(mel) // rules["mel_frames"]), 0] = 1
    mel = np.pad(mel, ((0, steps * rules["mel_frames"] - len(mel)), (0, 0)))[None]
    video = np.zeros((1, steps * rules["video_frames"], side, side), np.float32)
    return greedy_text(model(mel=mel, video=video, presence=presence), presence, bundle)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--wav")
    arguments = parser.parse_args()
    bundle = json.loads((arguments.bundle / "bundle.json").read_text("utf-8"))
    if bundle["schema"] != "edgeav-bundle/1":
        sys.exit(f"{arguments.bundle}: unknown schema {bundle['schema']}")
    model = open_model(arguments.bundle, bundle)
    if arguments.wav:
        print(transcribe(arguments.wav, bundle, model))
    elif not check(arguments.bundle, bundle, model):
        sys.exit(1)


if __name__ == "__main__":
    main()
