"""Arm processors under QEMU: the same transcripts as here, and instruction counts that repeat. No time is looked at."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgeav import runner
from edgeav.connect.push import bundle_files
from edgeav.connect.session import Session, on_device
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.fleet import recognize
from edgeav.profiling import Profile, profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
REPOSITORY = Path(__file__).parents[1]
SCRIPTS = REPOSITORY / "devices" / "emulated-pi"
CLIPS = 20
PIS = ("emulated-pi-4", "emulated-pi-5")  # both are one system: conftest.py gives their tests to one worker
DemoBundle = Callable[[str, str], Path]
Record = Callable[[str, object], None]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test clips of the demo corpus, as an .npz file."""
    from edgeav.data.corpus import open_corpus

    path = tmp_path_factory.mktemp("clips") / "clips.npz"
    media = [clip.media() for clip in open_corpus("demo").tests[0].utterances[:CLIPS]]
    arrays = {f"sound-{i}": one.waveform for i, one in enumerate(media)}
    np.savez(path, **arrays, **{f"mouth-{i}": one.mouth for i, one in enumerate(media)})  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="session", params=["emulated-cortex-a72", "emulated-cortex-a76"])
def cortex(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Device:
    """The C++ runner for arm64 under qemu-user; skips where it cannot be built or run."""
    pytest.importorskip("executorch", reason="pip install 'edgeav[executorch]'")
    if platform.machine() != "x86_64" or not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        pytest.skip("needs arm64 programs to run here: apt-get install qemu-user-static binfmt-support (as root)")
    missing = [name for name in ("aarch64-linux-gnu-g++", "qemu-aarch64", "cc") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install g++-aarch64-linux-gnu qemu-user gcc")
    place = tmp_path_factory.mktemp("cortex")
    return Device.load(request.param, [f"folder={place}", f"instruction_counter={SCRIPTS / 'count.sh'}"])


@pytest.fixture(scope="session")
def pis() -> Iterator[partial[Device]]:
    """The emulated Raspberry Pis, built if EDGEAV_BUILD_PI says so, with their SSH servers running."""
    place = Path(os.environ.get("EDGEAV_PI", Path.home() / ".cache/edgeav/emulated-pi"))
    if os.geteuid():
        pytest.skip("needs root, for chroot")
    if os.environ.get("EDGEAV_BUILD_PI"):
        subprocess.run(["sh", str(SCRIPTS / "build.sh")], check=True)
    with (Path(tempfile.gettempdir()) / "edgeav-emulated-pi.users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        started = subprocess.run(["sh", str(SCRIPTS / "serve.sh"), "start"], stderr=subprocess.PIPE, text=True)
        if started.returncode:
            pytest.skip(f"{started.stderr.strip()}, or EDGEAV_BUILD_PI=1")
        keys = [f"key={place / 'key'}", f"known_hosts={place / 'known_hosts'}"]
        yield partial(Device.load, overrides=keys)
        with suppress(BlockingIOError):  # another process of this test run still uses them, and will stop them
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            subprocess.run(["sh", str(SCRIPTS / "serve.sh"), "stop"], check=True)


def texts_here(bundle: Path, clips: Path) -> list[str]:
    """What x86 recognizes, through the agent's own code."""
    from edgeav.runtime.agent import recognize

    return recognize(bundle, clips)["texts"]


def texts_nearby(bundle: Path, clips: Path, index: int, within: float = 1e-6, draws: int = 32) -> set[str]:
    """What x86 itself recognizes in a clip whose log-mel moves by less than two machines' differ.

    A quantized activation that lies between two levels falls to either, and the logits then differ by 0.1 (measured:
    the same features give the same bits on both processors in most clips): a clip between two words has two.
    """
    from edgeav.measure import greedy_text
    from edgeav.runtime.agent import clip_inputs
    from edgeav.runtime.bundle import read_bundle
    from edgeav.runtime.engines import open_engine

    facts, r = read_bundle(bundle), np.random.default_rng(0)
    engine, inputs = open_engine(facts, 1), list(clip_inputs(clips, facts.features))[index]

    def text() -> str:
        audio = inputs.audio + r.uniform(-within, within, inputs.audio.shape).astype(np.float32)
        return greedy_text(engine.run(audio, inputs.video, inputs.presence), inputs, facts.tokens, facts.blank)

    return {text() for _ in range(draws)}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_twenty_clips_on_executorch_for_arm_give_the_transcripts_of_x86(
    cortex: Device, demo_bundle: DemoBundle, clips: Path, precision: str, record_property: Record
) -> None:
    folder = demo_bundle("executorch-xnnpack", precision)
    found, expected = recognize(folder, clips, cortex), texts_here(folder, clips)
    record_property("identical transcripts", identical(found["texts"], expected))
    assert len(found["texts"]) == CLIPS and "C++" in found["runtime"]
    assert found["texts"] == expected


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_instructions_on_arm_repeat_within_three_percent(
    cortex: Device, demo_bundle: DemoBundle, precision: str, record_property: Record
) -> None:
    folder = demo_bundle("executorch-xnnpack", precision)
    first, second = (profile(folder, cortex, operators=False) for _ in range(2))
    assert first.emulated and first.golden.cases == 1
    check_counts_repeat(first, second, record_property)


def test_a_processor_without_the_instructions_of_its_file_is_refused(cortex: Device, demo_bundle: DemoBundle) -> None:
    other = cortex.model_copy(update={"isa": ["sve2"]})
    with pytest.raises(EdgeavError, match=r"is not what its file says:\n  isa: no sve2; it has neon"):
        profile(demo_bundle("executorch-xnnpack", "fp32"), other)


@pytest.mark.parametrize("name", PIS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_twenty_clips_on_a_pi_over_ssh_give_the_transcripts_of_x86(
    pis: partial[Device], demo_bundle: DemoBundle, clips: Path, name: str, precision: str, record_property: Record
) -> None:
    folder = demo_bundle("onnxruntime", precision)
    found, expected = recognize(folder, clips, pis(name))["texts"], texts_here(folder, clips)
    record_property("identical transcripts", identical(found, expected))
    assert len(found) == CLIPS
    other = [i for i in range(CLIPS) if found[i] != expected[i]]
    if precision == "fp32":
        assert not other
    assert len(other) <= 1 and all(found[i] in texts_nearby(folder, clips, i) for i in other)


@pytest.mark.parametrize("name", PIS)
def test_executorch_on_a_pi_over_ssh_gives_the_transcripts_of_x86(
    pis: partial[Device], demo_bundle: DemoBundle, clips: Path, name: str, record_property: Record
) -> None:
    overrides = [*pis.keywords["overrides"], "runner=cpp", "engines=[executorch]"]
    folder = demo_bundle("executorch-xnnpack", "int8")
    found, expected = recognize(folder, clips, Device.load(name, overrides))["texts"], texts_here(folder, clips)
    record_property("identical transcripts", identical(found, expected))
    assert found == expected


@pytest.mark.parametrize("name", PIS)
def test_a_profile_of_a_pi_says_that_it_is_emulated_and_its_counts_repeat(
    pis: partial[Device], demo_bundle: DemoBundle, name: str, record_property: Record
) -> None:
    folder = demo_bundle("onnxruntime", "fp32")
    first, second = (profile(folder, pis(name), operators=False) for _ in range(2))
    assert first.emulated and "latency" in first.not_measured
    assert ("dotprod" in first.isa) == (name == "emulated-pi-5")
    check_counts_repeat(first, second, record_property)


@pytest.mark.parametrize("name", PIS)
def test_the_captions_of_a_pi_read_a_real_clip_as_this_machine_does(
    pis: partial[Device], demo_bundle: DemoBundle, name: str, grid: Path, record_property: Record
) -> None:
    from edgeav.runtime.transcriber import Transcriber

    folder, clip = demo_bundle("onnxruntime", "fp32"), next(iter(sorted(grid.glob("raw/**/*.mpg"))))
    expected = Transcriber(folder).transcribe(clip)
    assert expected.text and any(note.startswith("face: found") for note in expected.notes)

    def read(session: Session) -> dict:
        app, places = session.push("apps", app_files()), [session.push("bundles", bundle_files(folder))]
        places.append(f"{session.push('clips', {'clip' + clip.suffix: clip})}/clip{clip.suffix}")
        words = [session.device.interpreter, "-m", "captions", "--json", "--bundle", *places]
        return json.loads(session.run(words, {"PYTHONPATH": app}).out)

    found = on_device(pis(name), read)
    record_property("transcripts of a real clip, here | there", f"{expected.text} | {found['text']}")
    assert (found["text"], found["notes"]) == (expected.text, expected.notes)


def app_files() -> dict[str, Path]:
    """What the captions need there besides numpy, an engine and the readers of video: no more is imported."""
    runtime = [REPOSITORY / "edgeav" / "__init__.py", REPOSITORY / "edgeav" / "errors.py"]
    runtime += (REPOSITORY / "edgeav" / "runtime").glob("*.py")
    app = REPOSITORY / "devices" / "raspberry-pi"
    files = {str(path.relative_to(REPOSITORY)): path for path in runtime}
    return files | {str(path.relative_to(app)): path for path in app.glob("captions/*.py")}


def identical(found: list[str], expected: list[str]) -> str:
    """ "20 of 20" """
    same = sum(one == other for one, other in zip(found, expected, strict=True))
    return f"{same} of {len(expected)}"


def check_counts_repeat(first: Profile, second: Profile, record_property: Record) -> None:
    assert first.instructions is not None and second.instructions is not None
    for found in (first, second):
        record_property("million instructions a second of sound", round(found.instructions.per_second / 1e6, 3))  # type: ignore[union-attr]
    assert second.instructions.per_second == pytest.approx(first.instructions.per_second, rel=0.03)
    assert first.instructions.per_second > 1e6


def test_the_runner_is_built_once(cortex: Device) -> None:
    assert runner.build("aarch64") == runner.build("aarch64")
