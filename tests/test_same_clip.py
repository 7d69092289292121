"""One golden clip through all that reads bundles: the same log-mel and the same words on each."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import android_jvm
import numpy as np
import pytest
import web_tools

from edgeav.runtime.bundle import Golden, read_bundle
from edgeav.runtime.ctc import decode
from edgeav.runtime.engines import open_engine
from edgeav.runtime.features import from_named, hear

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
MEL_TOLERANCE = 1e-4
DemoBundle = Callable[[str, str], Path]
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def golden(demo_bundle: DemoBundle) -> Golden:
    """The demo model's golden clip; every bundle has the same."""
    (case,) = read_bundle(demo_bundle("onnxruntime", "fp32")).golden_cases()
    return case


def check(mel_off: float, text: str, golden: Golden, record_property: Record) -> None:
    record_property("log-mel off by", f"{mel_off:.1e}")
    record_property("transcript", text)
    assert mel_off < MEL_TOLERANCE
    assert text == golden.transcript != ""


def test_python_hears_and_reads_the_golden_clip(
    demo_bundle: DemoBundle, golden: Golden, record_property: Record
) -> None:
    bundle = read_bundle(demo_bundle("onnxruntime", "fp32"))
    mel = hear(golden.arrays["waveform"], bundle.features)
    assert mel is not None
    off = float(np.abs(mel - golden.arrays["mel"][0, : len(mel)]).max())
    log_probs = open_engine(bundle).run(*from_named(golden.arrays, bundle.features))
    check(
        off,
        decode(log_probs[0], bundle.tokens, bundle.blank, golden.arrays["presence"][0]).text,
        golden,
        record_property,
    )


def test_the_jvm_hears_and_reads_the_golden_clip(
    demo_bundle: DemoBundle, golden: Golden, tmp_path: Path, record_property: Record
) -> None:
    request = {"do": "golden", "bundle": demo_bundle("onnxruntime", "fp32")}
    ((found,),) = android_jvm.ask(tmp_path, request)
    assert not found["mel_rest"]
    check(found["mel_off"], found["text"], golden, record_property)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_page_hears_and_reads_the_golden_clip(
    demo_bundle: DemoBundle, golden: Golden, precision: str, record_property: Record
) -> None:
    web_tools.needs_runtime()
    (found,) = web_tools.ask("golden", folder=demo_bundle("onnxruntime", precision), runtime=web_tools.RUNTIME)
    assert found["ok"]
    check(found["mel"], found["transcript"], golden, record_property)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_cpp_runner_hears_and_reads_the_golden_clip(
    demo_bundle: DemoBundle, golden: Golden, precision: str, record_property: Record
) -> None:
    pytest.importorskip("executorch", reason="pip install 'edgeav[executorch]'")
    from edgeav import runner

    folder = demo_bundle("executorch-xnnpack", precision)
    (same,) = read_bundle(folder).golden_cases()
    np.testing.assert_array_equal(same.arrays["waveform"], golden.arrays["waveform"])
    program = runner.build(platform.machine())
    command = ["env", f"LD_LIBRARY_PATH={program}", str(program / runner.PROGRAM), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"ms: (.*)\n.*log-mel of its sound: max abs diff (\S+)", done.stdout)
    assert said
    check(float(said[2]), said[1], golden, record_property)
