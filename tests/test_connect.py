"""Transports: what arrives is whole and verified, nothing in a name is executed, strangers are refused, locks hold."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ssh_server import Sshd, Wire

from edgeav.connect import address, connect, session, shell
from edgeav.connect import push as pushing
from edgeav.connect.local import Local
from edgeav.connect.session import Session, on_device
from edgeav.device import Device
from edgeav.errors import EdgeavError

EVIL = "a b; touch pwned; $(touch pwned) `touch pwned` 'x' \"y\" & | > pwned * ~ -rf"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PAUSES_S", (0.1, 0.1, 0.1))


def device(place: Path | str, connect: str = "local", **more: Any) -> Device:
    facts = {"name": "desk", "description": "for tests", "arch": "native", "engines": ["onnxruntime"]}
    return Device.model_validate({**facts, "connect": connect, "folder": str(place), "python": sys.executable, **more})


def over_ssh(server: Sshd, place: Path | str, port: int | None = None, **more: Any) -> Device:
    where = {"connect": f"ssh:127.0.0.1:{port or server.port}", "key": server.key, "known_hosts": server.known_hosts}
    return device(place, **{**where, **more})


@pytest.fixture(params=["local", "ssh"])
def any_device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    place = tmp_path / "device"
    return device(place) if request.param == "local" else over_ssh(request.getfixturevalue("sshd"), place)


def some_files(folder: Path, names: tuple[str, ...] = ("model.bin", "golden/one.f32")) -> dict[str, Path]:
    files = {}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(200_000))
        files[name] = path
    return files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local", address.Address("local")),
        ("ssh:pi@raspberrypi.local", address.Address("ssh", "raspberrypi.local", "pi", 22)),
        ("ssh:pi@10.0.0.7:2222", address.Address("ssh", "10.0.0.7", "pi", 2222)),
        ("ssh:pi@[::1]:22", address.Address("ssh", "::1", "pi", 22)),
        ("ssh:host", address.Address("ssh", "host", None, 22)),
        ("adb:127.0.0.1:5555", address.Address("adb", "127.0.0.1:5555")),
    ],
)
def test_an_address_is_taken_apart(text: str, expected: address.Address) -> None:
    assert address.parse(text) == expected


@pytest.mark.parametrize("text", ["", "local:x", "ssh:", "ssh:a@b:0", "ssh:a@b:99999", "ssh:a@b:x", "adb: ", "usb:1"])
def test_what_is_no_address_is_refused_with_what_is_allowed(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed: local, ssh:USER@HOST"):
        device(tmp_path, text)


def test_a_pushed_folder_is_whole_verified_and_sent_once(any_device: Device, tmp_path: Path) -> None:
    files = some_files(tmp_path / "here")

    place = on_device(any_device, lambda found: found.push("bundles", files))
    before = (Path(place) / "model.bin").stat().st_ino
    again = on_device(any_device, lambda found: found.push("bundles", files))

    assert again == place
    assert {name: (Path(place) / name).read_bytes() for name in files} == {n: p.read_bytes() for n, p in files.items()}
    assert (Path(place) / "model.bin").stat().st_ino == before, "it was sent again"
    assert not list((Path(any_device.place) / "incoming").iterdir())


def test_what_was_damaged_on_the_device_is_sent_again(any_device: Device, tmp_path: Path) -> None:
    files = some_files(tmp_path / "here")
    place = Path(on_device(any_device, lambda found: found.push("bundles", files)))
    (place / "model.bin").write_bytes(b"half")

    on_device(any_device, lambda found: found.push("bundles", files))

    assert (place / "model.bin").read_bytes() == files["model.bin"].read_bytes()


def test_nothing_in_a_name_is_executed(any_device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    evil = any_device.model_copy(update={"folder": f"{any_device.folder}/{EVIL}", "environment": {"ODD": EVIL}})
    files = some_files(tmp_path / "here", (f"{EVIL}.bin", "golden/-n", "--help"))

    def job(found: Session) -> tuple[str, str, bytes]:
        place = found.push("bundles", files)
        said = found.run(["sh", "-c", 'printf "%s|%s" "$ODD" "$1"', "sh", EVIL]).out
        return place, said, found.pull(f"{place}/{EVIL}.bin")

    place, said, pulled = on_device(evil, job)

    assert said == f"{EVIL}|{EVIL}"
    assert pulled == files[f"{EVIL}.bin"].read_bytes()
    assert {path.name for path in Path(place).rglob("*") if path.is_file()} == {f"{EVIL}.bin", "-n", "--help"}
    assert not list(tmp_path.rglob("pwned"))
    assert not (Path.home() / "pwned").exists()


def test_a_host_and_a_user_are_names_and_nothing_else(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for where in ("$(touch pwned)", "a;touch pwned", "-oProxyCommand=touch pwned", "x' y"):
        with pytest.raises(EdgeavError, match=r"no connection|refused"):
            on_device(over_ssh(sshd, tmp_path, connect=f"ssh:{where}"), lambda _: None)
    with pytest.raises(EdgeavError, match="refused the login"):
        on_device(over_ssh(sshd, tmp_path, connect=f"ssh:$(touch pwned);x@127.0.0.1:{sshd.port}"), lambda _: None)
    assert not list(tmp_path.rglob("pwned"))


def test_a_serial_is_one_argument_behind_s_and_commands_are_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the client does what adb does: it joins the words behind `shell` and lets a shell read them."""
    fake = tmp_path / "bin" / "adb"
    fake.parent.mkdir()
    fake.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        f"open({str(tmp_path / 'log')!r}, 'a').write(repr(sys.argv[1:]) + chr(10))\n"
        "words = sys.argv[3:]\nif words == ['get-state']: print('device'); sys.exit()\n"
        "if words[0] == 'shell': sys.exit(subprocess.run(['sh', '-c', ' '.join(words[2:])]).returncode)\n"
        "a, b = words[1:]\nopen(b, 'wb').write(open(a, 'rb').read())\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    files = some_files(tmp_path / "here", (f"{EVIL}.bin",))

    place = on_device(device(tmp_path / EVIL, f"adb:{EVIL}"), lambda found: found.push("bundles", files))

    assert (Path(place) / f"{EVIL}.bin").read_bytes() == files[f"{EVIL}.bin"].read_bytes()
    calls = [eval(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(calls) > 4 and all(call[:2] == ["-s", EVIL] for call in calls)
    assert not list(tmp_path.rglob("pwned"))


def test_adb_says_when_a_device_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "adb"
    fake.write_text("#!/bin/sh\necho \"error: device 'x' not found\" >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EdgeavError, match=r"adb:x is not ready: error: device 'x' not found.*adb devices -l"):
        on_device(device("/tmp/x", "adb:x"), lambda _: None)


def test_adbs_client_that_ends_with_nothing_has_lost_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "adb"
    fake.write_text('#!/bin/sh\n[ "$3" = get-state ] && echo device\nexit 0\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EdgeavError, match=r"adb:x: it was lost before the command ended.*\(4 tries\)"):
        on_device(device("/tmp/x", "adb:x"), lambda _: None)


@pytest.mark.parametrize("stranger", ["unknown", "changed", "no file"])
def test_a_host_that_nobody_vouches_for_is_refused_and_never_remembered(
    sshd: Sshd, tmp_path: Path, stranger: str
) -> None:
    hosts = tmp_path / "known hosts"
    if stranger == "unknown":
        hosts.write_text("")
    if stranger == "changed":
        hosts.write_text(f"[127.0.0.1]:{sshd.port} {(sshd.place / 'other_key.pub').read_text()}")
    before = hosts.read_bytes() if hosts.exists() else None

    with pytest.raises(EdgeavError, match=rf"does not vouch for.*\n.*ssh-keyscan -p {sshd.port} 127\.0\.0\.1"):
        on_device(over_ssh(sshd, tmp_path, known_hosts=str(hosts)), lambda _: None)

    assert (hosts.read_bytes() if hosts.exists() else None) == before


def test_a_key_that_the_device_does_not_know_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(EdgeavError, match=r"refused the login.*ssh-copy-id"):
        on_device(over_ssh(sshd, tmp_path, key=str(sshd.place / "other_key")), lambda _: None)


def test_a_connection_that_drops_in_the_middle_of_a_push_is_opened_again_and_only_the_rest_is_sent(
    sshd: Sshd, tmp_path: Path
) -> None:
    files = some_files(tmp_path / "here", ("one", "two", "three"))  # 200 kB each
    with Wire(sshd.port, [300_000]) as wire:
        sshd.vouch_for(wire.port)
        place = on_device(over_ssh(sshd, tmp_path / "there", wire.port), lambda found: found.push("bundles", files))

    assert {name: (Path(place) / name).read_bytes() for name in files} == {n: p.read_bytes() for n, p in files.items()}
    assert len(wire.carried) == 2
    assert wire.carried[1] < 500_000, "the file that had arrived was sent again"


def test_a_push_that_never_gets_through_leaves_no_bundle_and_says_what_is_kept(sshd: Sshd, tmp_path: Path) -> None:
    files, there = some_files(tmp_path / "here"), tmp_path / "there"
    with Wire(sshd.port, [100_000] * 9) as wire:
        sshd.vouch_for(wire.port)
        with pytest.raises(EdgeavError, match=r"no connection: .*\(4 tries\). What is here is kept"):
            on_device(over_ssh(sshd, there, wire.port), lambda found: found.push("bundles", files))

    assert not (there / "bundles").exists()
    assert len(wire.carried) == 4


def test_files_that_arrive_damaged_get_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flips_a_bit(self: Local, local: Path, remote: str) -> object:
        data = bytearray(local.read_bytes())
        data[len(data) // 2] ^= 1
        Path(remote).write_bytes(data)
        return self.run(["true"])

    monkeypatch.setattr(Local, "put", flips_a_bit)
    with pytest.raises(EdgeavError, match=r"arrived damaged.*\n.*model\.bin"):
        on_device(device(tmp_path / "there"), lambda found: found.push("bundles", some_files(tmp_path / "here")))
    assert not (tmp_path / "there" / "bundles").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "small disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs root, and the right to mount, for a disk that is full")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("known_before", [True, False])
def test_a_device_that_is_full_is_told_apart_and_keeps_no_bundle(
    small_disk: Path, tmp_path: Path, known_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = some_files(tmp_path / "here", tuple(f"{index}.bin" for index in range(8)))  # 1.6 MB
    said = r"1 MB free in .*needed are 2 \+ 16 to spare"
    if not known_before:  # another process takes the space while we write
        monkeypatch.setattr(pushing, "SPARE_MB", -100)
        said = "cannot write .*No space left on device"
    with pytest.raises(EdgeavError, match=said):
        on_device(device(small_disk / "edgeav"), lambda found: found.push("bundles", files))
    assert not (small_disk / "edgeav" / "bundles").exists()


def test_the_second_of_two_runs_gets_a_clear_error_or_waits(any_device: Device) -> None:
    inside, leave, order = threading.Event(), threading.Event(), []

    def first(_: Session) -> None:
        inside.set()
        leave.wait(20)
        order.append("first")

    thread = threading.Thread(target=on_device, args=(any_device, first))
    thread.start()
    assert inside.wait(20)
    with pytest.raises(EdgeavError, match=rf"desk is in use by .*process {os.getpid()}.*--wait SECONDS"):
        on_device(any_device, lambda _: order.append("never"))
    waiting = threading.Thread(target=on_device, args=(any_device, lambda _: order.append("second"), 20))
    waiting.start()
    time.sleep(0.3)
    leave.set()
    waiting.join(30)
    thread.join(30)
    assert order == ["first", "second"]


def test_the_lock_of_a_host_that_was_killed_is_free(any_device: Device, tmp_path: Path) -> None:
    code = (
        "import sys, time; from edgeav.device import Device; from edgeav.connect.session import on_device\n"
        "def job(session): print('inside', flush=True); time.sleep(60)\n"
        "on_device(Device.model_validate_json(sys.argv[1]), job)"
    )
    command = [sys.executable, "-c", code, any_device.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert holder.stdout and holder.stdout.readline() == "inside\n"
    holder.kill()
    holder.wait()
    assert on_device(any_device, lambda _: "in", wait_s=10) == "in"


def test_what_runs_on_a_device_is_killed_when_the_connection_breaks(sshd: Sshd, tmp_path: Path) -> None:
    note = tmp_path / "process"
    script = 'echo $$ > "$1"; exec sleep 300'
    with Wire(sshd.port, []) as wire:
        sshd.vouch_for(wire.port)
        there = over_ssh(sshd, tmp_path / "there", wire.port)
        connection = connect(there)
        root = session._root(connection, there)
        command = shell(session.RUN, f"{root}/run.lock", "5", *shell(script, str(note)))
        said: list[str] = []
        running = partial(connection.run, command, 60, tethered=True)
        thread = threading.Thread(target=lambda: said.append(_error(running)))
        thread.start()
        _until(lambda: note.exists() and note.read_text().strip())
        process = int(note.read_text())
        connection.close()
        thread.join(20)
        assert len(said) == 1 and "closed before the command ended" in said[0]
        _until(lambda: not _alive(process))


def test_a_command_that_is_killed_or_fails_says_so(any_device: Device) -> None:
    with pytest.raises(EdgeavError, match=r"sh on desk was killed \(SIGKILL; Linux does that when memory runs out\)"):
        on_device(any_device, lambda found: found.run(["sh", "-c", "kill -9 $$"]))
    with pytest.raises(EdgeavError, match=r"sh on desk failed \(exit 3\):\n  no such luck"):
        on_device(any_device, lambda found: found.run(["sh", "-c", "echo no such luck >&2; exit 3"]))


def test_a_command_that_hangs_is_stopped(any_device: Device) -> None:
    hurried = any_device.model_copy(update={"limits": any_device.limits.model_copy(update={"seconds": -29})})
    with pytest.raises(EdgeavError, match=r"1 s.*stopped"):
        on_device(hurried, lambda found: found.run(["sleep", "60"]))


def test_a_device_without_sha256sum_or_flock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "mkdir"):
        (tools / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(EdgeavError, match="desk has no flock"):
        on_device(device(tmp_path / "there"), lambda _: None)


def _error(work: Any) -> str:
    with pytest.raises(EdgeavError) as error:
        work()
    return str(error.value)


def _until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
