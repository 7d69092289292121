"""The page in headless Chromium: captions from a fake camera and microphone, and what it does without them."""

from __future__ import annotations

import json
import os
import shutil
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from chromium import Page, chromium, find_chromium
from numpy.typing import NDArray
from tiny_bundle import make_bundle
from web_tools import WEB, drawn_clip, needs_runtime, script

from edgeav.device import Device
from edgeav.measured import read_measured
from edgeav.runtime.bundle import read_bundle
from edgeav.runtime.ctc import decode
from edgeav.runtime.engines import open_engine
from edgeav.runtime.features import from_named

pytestmark = pytest.mark.slow

CLIP = 1  # which Python reads without a mistake
FAKES = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
STATE = "(document.getElementById('state')?.textContent ?? '')"
READY = f"{STATE}.startsWith('Ready')"
NOTICE_PARTIALS = """new MutationObserver(() =>
    (window.partial ||= document.querySelector('#captions .partial') !== null))
    .observe(document.getElementById('captions'), {childList: true, subtree: true})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the page without models."""
    if find_chromium() is None:
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    needs_runtime()
    folder = tmp_path_factory.mktemp("site") / "web"
    shutil.copytree(WEB, folder, ignore=shutil.ignore_patterns("bundles", "__pycache__"))
    return folder


@contextmanager
def served(site: Path) -> Iterator[str]:
    server = script("serve").open_server(0, site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with served(site) as address:
        yield address


@pytest.fixture(scope="module")
def demo(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's bundle: exported here, or the folder that EDGEAV_WEB_BUNDLE names."""
    folder = Path(os.environ.get("EDGEAV_WEB_BUNDLE") or tmp_path_factory.mktemp("bundle") / "demo")
    if not folder.is_dir():
        from typer.testing import CliRunner

        from edgeav.cli import app

        done = CliRunner().invoke(
            app, ["export", "av-fast-conformer-demo", "--target", "onnxruntime", "--out", str(folder)]
        )
        assert done.exit_code == 0, done.output
    script("install").add_bundles([folder], site / "bundles")
    return folder


def write_wav(path: Path, sound: NDArray[np.float32]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, len(sound), "NONE", ""))
        file.writeframes((32767 * np.clip(sound, -1, 1)).astype("<i2").tobytes())


def write_y4m(path: Path, pictures: NDArray[np.uint8]) -> None:
    """Gray pictures as the camera file that Chromium reads, in a video's range of levels."""
    _, height, width = pictures.shape
    color = bytes([128]) * (height * width // 2)
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420mpeg2\n".encode())
        for picture in pictures:
            file.write(b"FRAME\n" + (16 + picture * (219 / 255)).astype(np.uint8).tobytes() + color)


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Flags for a camera and a microphone that play the drawn clip and a pause of two seconds, again and again."""
    folder = tmp_path_factory.mktemp("devices")
    _, sound, pictures = drawn_clip(CLIP)
    room = 1e-3 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    still = np.repeat(pictures[-1:], len(room) // 640 + len(sound) // 640 + 1 - len(pictures), axis=0)
    write_wav(folder / "speech.wav", np.concatenate([sound, room]))
    write_y4m(folder / "face.y4m", np.concatenate([pictures, still]))
    camera, microphone = folder / "face.y4m", folder / "speech.wav"
    return (*FAKES, f"--use-file-for-fake-video-capture={camera}", f"--use-file-for-fake-audio-capture={microphone}")


def ready(page: Page, url: str) -> None:
    page.open(url)
    page.wait(f"document.readyState === 'complete' && {READY}", 120)
    page.wait("crossOriginIsolated")


def press_start(page: Page) -> None:
    page.evaluate("document.getElementById('start').click()")


def test_captions_appear_and_the_golden_clip_is_pythons(
    url: str,
    demo: Path,
    devices: tuple[str, ...],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    bundle = read_bundle(demo)
    (case,) = bundle.golden_cases()
    log_probs = open_engine(bundle, 1).run(*from_named(case.arrays, bundle.features))
    python = decode(log_probs[0], bundle.tokens, bundle.blank, case.arrays["presence"][0]).text

    with chromium(tmp_path / "profile", *devices) as page:
        ready(page, url)
        page.evaluate(NOTICE_PARTIALS)
        press_start(page)
        # Not all words of all captions: the fake camera and microphone repeat each at its own pace, and lips drift off.
        said = json.dumps(drawn_clip(CLIP)[0].split())
        shared = f"[...new Set(caption.text.split(' '))].filter((word) => {said}.includes(word)).length"
        page.wait(f"edgeavReport().captions.some((caption) => {shared} >= 3)", 120)
        page.wait("window.partial && document.getElementById('sign-face').className === 'on'")
        report = page.evaluate("edgeavReport()")
        page.screenshot(Path(os.environ.get("EDGEAV_WEB_SCREENSHOT") or tmp_path / "page.png"))
        log = page.log

    (golden,) = report["golden"]
    assert golden["transcript"] == python == case.transcript
    assert golden["mel"] < 1e-4 and golden["logProbs"] <= case.tolerance
    factors = [caption["times_ms"]["rtf"] for caption in report["captions"]]
    record_property("real-time factors of the captions", " ".join(f"{factor:.2f}" for factor in factors))
    record_property("captions", " / ".join(caption["text"] for caption in report["captions"]))
    for caption in report["captions"]:
        assert {"capture", "face", "crop", "mel", "encode", "decode"} <= set(caption["times_ms"])
        assert caption["times_ms"]["rtf"] > 0  # how much is for a quiet machine to say
    assert not [line for line in log if line.startswith("thrown")]


@pytest.fixture(scope="module")
def tiny(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second site whose only model is the tiny one."""
    folder = tmp_path_factory.mktemp("tiny-site") / "web"
    shutil.copytree(site, folder, ignore=shutil.ignore_patterns("bundles"))
    bundles = [make_bundle(folder.parent / name, off=off).folder for name, off in (("good", 0.0), ("wrong", 0.1))]
    script("install").add_bundles(bundles, folder / "bundles")
    return folder


@pytest.fixture
def tiny_url(tiny: Path) -> Iterator[str]:
    with served(tiny) as address:
        yield address


def test_without_devices_the_page_says_so_and_offers_to_start_again(tiny_url: str, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as page:
        ready(page, tiny_url)
        press_start(page)
        page.wait(f"{STATE}.includes('No camera') && {STATE}.includes('No microphone')")
        assert "Nothing is left to caption" in page.evaluate(STATE)
        assert page.evaluate("document.getElementById('start').textContent") == "Start"


def test_with_no_camera_it_goes_on_with_sound(tiny_url: str, devices: tuple[str, ...], tmp_path: Path) -> None:
    refuse = """const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = (wanted) => wanted.video
            ? Promise.reject(new DOMException('', 'NotAllowedError')) : ask(wanted);"""
    with chromium(tmp_path / "profile", *devices) as page:
        ready(page, tiny_url)
        page.evaluate(refuse)
        press_start(page)
        page.wait(f"{STATE}.includes('permission was refused') && {STATE}.includes('Going on with sound alone')")
        page.wait("document.getElementById('sign-speech').className === 'on'", 30)


def test_a_model_that_computes_something_else_here_is_refused(tiny_url: str, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as page:
        page.open(f"{tiny_url}?model=wrong")
        page.wait(f"{STATE}.includes('comes out wrong here')", 120)
        assert page.evaluate("document.getElementById('start').disabled")


def test_what_the_page_measures_is_a_profile_of_edgeav(tiny_url: str, tiny: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as page:
        ready(page, tiny_url)
        page.evaluate("document.getElementById('profile').click()")
        page.wait("window.edgeavProfile()", 120)
        measured = page.evaluate("window.edgeavProfile()")
        state = page.evaluate(STATE)
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(measured))
    found = read_measured(path, tiny.parent / "good", Device.load("browser"))
    assert (found.n, found.seconds, found.golden.cases) == (50, 4.0, 2)
    assert found.runtime == "onnxruntime-web 1.30.0, wasm" and found.board and "Chrome" in found.board
    assert state.startswith("Measured")


def test_it_works_without_its_server_once_it_was_there(tiny: Path, tmp_path: Path) -> None:
    server = script("serve").open_server(0, tiny)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://localhost:{server.server_port}/"
    with chromium(tmp_path / "profile") as page:
        ready(page, url)
        page.wait("navigator.serviceWorker.controller && caches.match('src/view.js').then(Boolean)")
        server.shutdown()
        server.server_close()
        page.open(f"{url}?again")
        page.wait(f"location.search === '?again' && {READY}", 120)
