"""What has been shown of devices: a table of bars and what was measured, from the tests that measure it.

    python benchmarks/devices.py                    # every row that this machine can run, one test after another
    python benchmarks/devices.py --rows adb browser

The tests record what they measure: no number comes without its assertion. What is missing
for a row (root, an emulator, a browser, real clips) is its tests' skip message. No time of an emulated device is in it.
Adds to benchmarks/results/devices.json, each row with its commit; rows that did not run keep what they had.
EDGEAV_BUNDLES: a folder that keeps the bundles of the demo model (TARGET-PRECISION) for all rows and the next call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgeav.results import provenance

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "devices.json"


@dataclass(frozen=True)
class Row:
    """One claim, its bar, and the tests (FILE, or FILE::FUNCTION, below tests/) that hold it."""

    what: str
    bar: str
    tests: tuple[str, ...]


EMULATED, CONNECT, RUNNERS = (
    "test_emulated.py::test_",
    "test_connect.py::test_",
    "test_runners.py::test_the_cpp_runner_",
)
ROWS = {
    "pi": Row(
        "emulated Pi 4 and 5 over a real sshd",
        "20 transcripts as on x86, ONNX Runtime and ExecuTorch; no time shown",
        (
            f"{EMULATED}twenty_clips_on_a_pi_over_ssh_give_the_transcripts_of_x86",
            f"{EMULATED}executorch_on_a_pi_over_ssh_gives_the_transcripts_of_x86",
            f"{EMULATED}a_profile_of_a_pi_says_that_it_is_emulated_and_its_counts_repeat",
        ),
    ),
    "arm": Row(
        "Cortex-A72 and A76, ExecuTorch in C++",
        "20 transcripts as on x86",
        (f"{EMULATED}twenty_clips_on_executorch_for_arm_give_the_transcripts_of_x86",),
    ),
    "adb": Row("a real adbd, the C++ runner for arm64", "golden vectors hold, the profile is pulled", ("test_adb.py",)),
    "instructions": Row(
        "instructions a second of sound, fp32 and int8, A72 and A76",
        "two counts within 3 %",
        (f"{EMULATED}instructions_on_arm_repeat_within_three_percent",),
    ),
    "runner": Row(
        "C++ runner",
        "at most 60 MB, built in 60 s",
        (
            f"{RUNNERS}is_built_by_its_script_with_all_that_it_needs",
            f"{RUNNERS}needs_at_most_60_mb_for_the_demo_model_and_multiplies_in_integers",
        ),
    ),
    "captions": Row(
        "Raspberry Pi app on the emulated Pis, a real clip",
        "the transcript of `edgeav transcribe`",
        (f"{EMULATED}the_captions_of_a_pi_read_a_real_clip_as_this_machine_does",),
    ),
    "clip": Row(
        "one golden clip: Python, JVM, page, C++ runner",
        "log-mel within 1e-4, identical transcript",
        ("test_same_clip.py",),
    ),
    "browser": Row(
        "headless Chromium, fake camera and microphone",
        "a caption appears; real-time factor below 0.5",
        ("test_web_page.py::test_captions_appear_and_the_golden_clip_is_pythons",),
    ),
    "faults": Row(
        "drops, full disk, killed agent, wrong architecture, clock jumps, two runs",
        "a clear error or a retry; no half bundle",
        ("test_connect.py", "test_agent.py"),
    ),
    "names": Row(
        "quotes, `;`, `$()` in files, hosts, users, serials",
        "nothing is executed",
        (
            f"{CONNECT}nothing_in_a_name_is_executed",
            f"{CONNECT}a_host_and_a_user_are_names_and_nothing_else",
            f"{CONNECT}a_serial_is_one_argument_behind_s_and_commands_are_quoted",
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    names, failed = parser.parse_args().rows, False
    for name in names:
        row = measured(ROWS[name])
        failed |= bool(row["failed"])
        found = known() | {name: row}  # read only now: another call may have added its rows meanwhile
        RESULTS.write_text(json.dumps({key: found[key] for key in ROWS if key in found}, indent=1) + "\n", "utf-8")
    print(table(known()))
    sys.exit(failed)


def known() -> dict[str, Any]:
    """The rows that were measured before."""
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}


def measured(row: Row) -> dict[str, Any]:
    """Run the tests of a row, one after another; see `read`."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", f"--junitxml={report}"]
        command += ["-o", "junit_family=xunit1"]  # the one that may hold what a test records
        subprocess.run([*command, *(f"tests/{test}" for test in row.tests)], cwd=REPOSITORY, stdout=sys.stderr)
        return read(row, list(ElementTree.parse(report).iter("testcase")))


def read(row: Row, cases: Sequence[ElementTree.Element]) -> dict[str, Any]:
    """{what, bar, passed, failed, skipped, missing, values: {test: {name: [values]}}, commit, cpu, versions}."""
    bad = [case.attrib["name"] for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skips = [case.find("skipped") for case in cases]
    reasons = [skip.attrib.get("message", "") for skip in skips if skip is not None]
    return {
        "what": row.what,
        "bar": row.bar,
        "passed": len(cases) - len(bad) - len(reasons),
        "failed": bad,
        "skipped": len(reasons),
        "missing": sorted(set(reasons)),
        "values": {case.attrib["name"]: _values(case) for case in cases if case.find("properties") is not None},
        **provenance(),
    }


def _values(case: ElementTree.Element) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for item in case.iterfind("properties/property"):
        out.setdefault(item.attrib["name"], []).append(item.attrib["value"])
    return out


def table(found: dict[str, dict[str, Any]]) -> str:
    """In Markdown: a line a row, its tests under each other."""
    lines = ["| what | bar | tests passed | measured |", "|---|---|---:|---|"]
    for name in filter(found.__contains__, ROWS):
        row = found[name]
        total = row["passed"] + len(row["failed"]) + row["skipped"]
        said = [f"{_words(test)}: {_said(values)}" for test, values in row["values"].items()]
        said += [f"FAILED {_words(test)}" for test in row["failed"]]
        said += [f"skipped: {reason}" for reason in row["missing"]]
        cells = (row["what"], row["bar"], f"{row['passed']} of {total}", "<br>".join(said))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def _said(values: dict[str, list[str]]) -> str:
    return "; ".join(f"{name} {', '.join(several)}" for name, several in values.items())


def _words(test: str) -> str:
    """A test's name as the sentence that it is, with its parameters."""
    name, bracket, parameters = test.removeprefix("test_").partition("[")
    return name.replace("_", " ") + (f" {bracket}{parameters}" if bracket else "")


if __name__ == "__main__":
    main()
