"""The real adbd for arm64 behind the real adb: pushes, quoting, faults, and the C++ runner. No time is looked at."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeav.connect import Dropped
from edgeav.connect.adb import Adb
from edgeav.connect.session import Session, on_device
from edgeav.device import Device
from edgeav.errors import EdgeavError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SCRIPTS = Path(__file__).parents[1] / "devices" / "emulated-adb"
ROOT = Path(os.environ.get("EDGEAV_ADB", Path.home() / ".cache/edgeav/emulated-adb")) / "root"
ADB = ("adb", "-s", "127.0.0.1:5555")
EVIL = "a b; touch pwned; $(touch pwned) `touch pwned` 'x' \"y\" & | > pwned * ~ -rf"


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """The emulated device with an empty folder; EDGEAV_BUILD_ADB builds it. Skips where it is not."""
    if os.geteuid():
        pytest.skip("needs root, for chroot")
    if os.environ.get("EDGEAV_BUILD_ADB"):
        subprocess.run(["sh", str(SCRIPTS / "build.sh")], check=True)
    folder = f"/data/local/tmp/{tmp_path_factory.getbasetemp().name}-{os.getpid()}"
    hold = ["sh", str(SCRIPTS / "run.sh"), "sh", "-c", 'echo "$ADB_SERVER_SOCKET"; exec cat']
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdin and running.stdout and running.stderr
        socket = running.stdout.readline().decode().strip()
        if not socket:
            pytest.skip(f"{running.stderr.read().decode().strip()}, or EDGEAV_BUILD_ADB=1")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ADB_SERVER_SOCKET", socket)
            yield Device.load("emulated-adb", [f"folder={folder}"])
            on_device(Device.load("emulated-adb", [f"folder={folder}"]), lambda found: found.run(["rm", "-rf", folder]))


def on_the_phone(path: str) -> Path:
    """A path there, seen from here."""
    return ROOT / path.lstrip("/")


def some_files(folder: Path, *names: str, size: int = 200_000) -> dict[str, Path]:
    folder.mkdir(parents=True)
    files = {name: folder / str(number) for number, name in enumerate(names)}
    for path in files.values():
        path.write_bytes(os.urandom(size))
    return files


def test_a_pushed_folder_is_whole_and_nothing_in_a_name_is_executed(phone: Device, tmp_path: Path) -> None:
    odd = phone.model_copy(update={"folder": f"{phone.folder}/{EVIL}", "environment": {"ODD": EVIL}})
    files = some_files(tmp_path / "here", f"{EVIL}.bin", "golden/-n", "--help")

    def job(found: Session) -> tuple[str, str, bytes]:
        place = found.push("bundles", files)
        said = found.run(["sh", "-c", 'printf "%s|%s" "$ODD" "$1"', "sh", EVIL]).out
        return place, said, found.pull(f"{place}/{EVIL}.bin")

    place, said, pulled = on_device(odd, job)

    assert said == f"{EVIL}|{EVIL}"
    assert pulled == files[f"{EVIL}.bin"].read_bytes()
    there = {name: (on_the_phone(place) / name).read_bytes() for name in files}
    assert there == {name: path.read_bytes() for name, path in files.items()}
    assert not [path for top in (ROOT, ROOT / "root", ROOT / "data") for path in top.glob("**/pwned")]


def test_a_command_ends_when_it_ends_and_is_killed_when_it_is_killed(phone: Device) -> None:
    start = time.monotonic()
    assert on_device(phone, lambda found: found.run(["uname", "-m"]).out.strip()) == "aarch64"
    assert time.monotonic() - start < 20
    with pytest.raises(EdgeavError, match=r"sh on emulated-adb was killed \(SIGKILL"):
        on_device(phone, lambda found: found.run(["sh", "-c", "kill -9 $$"]))
    with pytest.raises(EdgeavError, match=r"sh on emulated-adb failed \(exit 3\):\n  no such luck"):
        on_device(phone, lambda found: found.run(["sh", "-c", "echo no such luck >&2; exit 3"]))


def test_a_device_that_is_lost_during_a_command_is_not_taken_for_one_that_succeeded(phone: Device) -> None:
    adb = Adb(phone.address.host)
    cut = threading.Timer(1.0, lambda: subprocess.run([*ADB, "reconnect"], capture_output=True, check=True))
    cut.start()
    with pytest.raises(Dropped, match="it was lost before the command ended"):
        adb.run(["sleep", "30"])
    cut.join()
    assert on_device(phone, lambda found: found.run(["echo", "back"]).out.strip()) == "back"


def test_the_second_of_two_runs_is_told_who_has_the_device(phone: Device) -> None:
    def first(_: Session) -> None:
        with pytest.raises(EdgeavError, match=rf"emulated-adb is in use by .*process {os.getpid()}"):
            on_device(phone, lambda _: None)

    on_device(phone, first)
    assert on_device(phone, lambda _: "free again") == "free again"


def test_a_connection_that_drops_in_the_middle_of_a_push_is_opened_again(
    phone: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = some_files(tmp_path / "here", *(f"{index}.bin" for index in range(12)), size=4_000_000)
    incoming = on_the_phone(f"{phone.folder}/incoming")
    opened: list[Adb] = []
    begin = Adb.__init__
    monkeypatch.setattr(Adb, "__init__", lambda self, serial: (opened.append(self), begin(self, serial))[1])

    def cut() -> None:
        end = time.monotonic() + 60
        while not list(incoming.glob("*/2.bin")) and time.monotonic() < end:
            time.sleep(0.005)
        subprocess.run([*ADB, "reconnect"], capture_output=True, check=True)

    thread = threading.Thread(target=cut)
    thread.start()
    place = on_device(phone, lambda found: found.push("bundles", files))
    thread.join()

    assert len(opened) > 1, "nothing was cut"
    there = {name: (on_the_phone(place) / name).read_bytes() for name in files}
    assert there == {name: path.read_bytes() for name, path in files.items()}


def test_the_cpp_runner_is_measured_over_adb_and_its_profile_is_pulled(
    phone: Device, demo_bundle: Callable[[str, str], Path], record_property: Callable[[str, object], None]
) -> None:
    pytest.importorskip("executorch", reason="pip install 'edgeav[executorch]'")
    from edgeav import runner
    from edgeav.profiling import profile

    try:
        runner.build("aarch64")
    except EdgeavError as error:
        pytest.skip(str(error))
    found = profile(demo_bundle("executorch-xnnpack", "int8"), phone)
    record_property("golden vectors off by", f"{found.golden.max_abs:.1e}")
    assert (found.device, found.arch, found.emulated, found.golden.cases) == ("emulated-adb", "aarch64", True, 1)
    assert "dotprod" in found.isa and "latency" in found.not_measured
    assert found.operators and not list(on_the_phone(str(phone.folder)).glob("result-*"))
