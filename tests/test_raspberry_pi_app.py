"""The captions program as a process, with fake devices: programs of the names that it runs, first in PATH."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import make_bundle

pytest.importorskip("cv2", reason="pip install 'edgeav[video]'")
pytest.importorskip("av", reason="pip install 'edgeav[video]'")
pytest.importorskip("onnxruntime", reason="pip install 'edgeav[onnxruntime]'")
pytest.importorskip("onnx", reason="the tiny model is built with onnx: pip install 'edgeav[compress]'")

REPOSITORY = Path(__file__).parents[1]
APP = REPOSITORY / "devices" / "raspberry-pi"
# Writes a file to stdout at the pace of a device, then ends, or waits for ever.
PLAY = """#!{python}
import sys, time
data, block, pause, stay = open({data!r}, "rb").read(), {block}, {pause}, {stay}
for start in range(0, len(data), block):
    sys.stdout.buffer.write(data[start : start + block])
    sys.stdout.buffer.flush()
    time.sleep(pause)
time.sleep(1000 if stay else 0)
"""
BROKEN = "#!/bin/sh\necho 'ERROR: no cameras available!' >&2\nexit 255\n"


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def speech(*seconds: float) -> bytes:
    """16-bit noise: quiet, loud, quiet, … for so long each."""
    random = np.random.default_rng(0)
    parts = [(20, 3000)[i % 2] * random.standard_normal(round(16_000 * s)) for i, s in enumerate(seconds)]
    return np.concatenate(parts).astype("<i2").tobytes()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle").folder


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """A folder for fake programs; nothing but it is in the PATH of the app."""
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def plays(devices: Path, name: str, data: bytes, block: int, stay: bool = False) -> None:
    file = devices.parent / f"{name}.raw"
    file.write_bytes(data)
    text = PLAY.format(python=sys.executable, data=str(file), block=block, pause=0.01, stay=stay)
    program(devices / name, text)


def start(devices: Path, bundle: Path, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PATH": str(devices), "PYTHONPATH": os.pathsep.join([str(APP), str(REPOSITORY)])}
    command = [sys.executable, "-m", "captions", "--bundle", str(bundle), "--json", *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def captions(said: str) -> list[dict]:
    return [row for row in map(json.loads, said.splitlines()) if row["final"]]


def test_sound_alone_is_captioned_when_the_camera_is_missing(devices: Path, bundle: Path) -> None:
    plays(devices, "arecord", speech(1.5, 1.5, 1.5), 2560)
    program(devices / "rpicam-vid", BROKEN)
    process = start(devices, bundle)
    out, err = process.communicate(timeout=120)
    assert len(captions(out)) == 1
    found = captions(out)[0]
    assert found["caption"].split() == found["words"] != []
    assert {"temperature_c", "throttling", "frequency_mhz"} <= set(found)
    assert found["rtf"] > 0 and found["waited_ms"] >= 0
    assert "no camera: rpicam-vid (exit 255): ERROR: no cameras available!; going on with sound alone" in err
    assert "no microphone: it ended" in err
    assert process.returncode == 2 and "neither camera nor microphone is left" in err


def test_what_is_not_installed_is_said_with_what_to_type(devices: Path, bundle: Path) -> None:
    process = start(devices, bundle, "--camera", "/dev/no-such-camera")
    out, err = process.communicate(timeout=120)
    assert (out, process.returncode) == ("", 2)
    assert "no microphone: arecord is not installed: sudo apt install alsa-utils" in err
    assert "/dev/no-such-camera cannot be opened" in err
    assert "Traceback" not in err


def test_a_face_that_is_not_there_is_said_and_sound_goes_on(devices: Path, bundle: Path) -> None:
    plays(devices, "arecord", speech(5.0, 1.5, 1.5), 2560)
    plays(devices, "rpicam-vid", bytes(640 * 480 * 3 // 2) * 20, 640 * 480 * 3 // 2)
    program(devices / "rpicam-vid", (devices / "rpicam-vid").read_text().replace("0.01", "0.3"))
    out, err = start(devices, bundle).communicate(timeout=120)
    assert "no face in sight: sound alone" in err
    assert captions(out)


def test_stopping_it_reads_what_is_being_spoken(devices: Path, bundle: Path) -> None:
    plays(devices, "arecord", speech(1.5, 2.0), 2560, stay=True)
    process = start(devices, bundle, "--camera", "none")
    assert process.stdout and process.stderr
    first = json.loads(process.stdout.readline())  # a caption that still grows
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert not first["final"] and captions(out)
    assert process.returncode == 0, err
    assert not _running(devices / "arecord")


def test_a_file_gives_the_transcript_of_edgeav_transcribe(devices: Path, bundle: Path, edgeav, tmp_path: Path) -> None:
    clip = tmp_path / "a clip; $(touch pwned).wav"
    with wave.open(str(clip), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(speech(0.5, 1.5, 0.5))
    process = start(devices, bundle, str(clip), str(tmp_path / "no.wav"))
    out, err = process.communicate(timeout=120)
    (expected,) = json.loads(edgeav("transcribe", clip, "--bundle", bundle, "--json").stdout)
    found = json.loads(out)
    assert found["text"] == expected["text"] != ""
    assert process.returncode == 2 and "no.wav: no such file" in err  # the other file was still read


def test_the_app_needs_no_torch(bundle: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(APP)!r})
import captions.__main__
from edgeav.runtime.transcriber import Transcriber
Transcriber({str(bundle)!r})
assert not {{"torch", "pydantic", "typer"}} & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_no_bundle_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    place = tmp_path / "place"
    command = ["sh", str(APP / "install.sh"), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PLACE": str(place)}, capture_output=True, text=True)
    assert done.returncode == 1 and "has no bundle.json" in done.stderr
    assert not place.exists()


def _running(path: Path) -> bool:
    """Whether a process runs that program; it may take a moment to end."""
    for _ in range(50):
        if not any(str(path).encode() in line for line in _command_lines()):
            return False
        time.sleep(0.1)
    return True


def _command_lines() -> list[bytes]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes())
        except OSError:  # it ended meanwhile
            continue
    return found
