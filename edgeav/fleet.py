"""Many devices at once: which are there, and one bundle measured on all of them in parallel, with one table.

A device that fails costs its own row, not the others': what was measured is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from edgeav import spec
from edgeav.agent import check_identity
from edgeav.connect.push import bundle_files
from edgeav.connect.session import Session, on_device
from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.measuring import check_engine, pushed
from edgeav.profiling import EMULATED, SINGLE_STREAM, Profile, profile
from edgeav.runner import Runner, case_files
from edgeav.runtime.bench import Workload
from edgeav.runtime.bundle import read_bundle

AT_ONCE = 16
T = TypeVar("T")


@dataclass(frozen=True)
class Load:
    """How `edgeav profile` was asked to measure; None: what is usual."""

    seconds: float = 4.0
    single_stream: bool = False
    queries: int | None = None
    at_least_s: float | None = None
    sustained_s: float = 0.0
    clip: Path | None = None  # to stream

    def workload(self, device: Device) -> Workload:
        """An emulated device does the least: its times count for nothing."""
        if device.emulated:
            return EMULATED
        usual = SINGLE_STREAM if self.single_stream else Workload()
        times = {"seconds": self.seconds, "sustained_s": self.sustained_s}
        times |= {} if self.at_least_s is None else {"at_least_s": self.at_least_s}
        return replace(usual, iterations=self.queries or usual.iterations, **times)


@dataclass(frozen=True)
class Fleet:
    """One bundle on several devices: profiles in the order asked for, and the devices that failed."""

    profiles: list[Profile]
    errors: dict[str, str]

    def table(self) -> list[dict[str, Any]]:
        return [row(found) for found in self.profiles] + [{"device": name, "p50 ms": "failed"} for name in self.errors]


def row(found: Profile) -> dict[str, Any]:
    """A profile as a line for people. An emulated device has no latency."""

    def ms(value: float) -> str:
        return "emulated" if found.emulated else f"{value:.1f}"

    peak = None if found.peak_rss_mb is None else f"{found.peak_rss_mb:.0f}"
    return {
        "device": found.device,
        "engine": found.runtime,
        "isa": " ".join(found.isa),
        "threads": found.threads,
        "load ms": ms(found.load_ms),
        "p50 ms": ms(found.wall_ms.p50),
        "p90 ms": ms(found.wall_ms.p90),
        "RTF": "emulated" if found.emulated else f"{found.rtf:.4f}",
        "peak MB": "emulated" if found.emulated else peak,
        "Minstr/s": f"{found.instructions.per_second / 1e6:.1f}" if found.instructions else None,
    }


def declared(names: Sequence[str] | None, overrides: Sequence[str]) -> list[Device]:
    """The devices of these names; all that are shipped where none are given."""
    return [Device.load(name, overrides) for name in names or spec.shipped("devices")]


def survey(devices: Sequence[Device], reach: bool = True) -> list[dict[str, Any]]:
    """A row a device: what its file says, and `state`: what it answers, or why it does not."""
    answers: list[Any] = _each(devices, _facts) if reach else [None] * len(devices)
    rows = []
    for device, answer in zip(devices, answers, strict=True):
        row = {"device": device.name, "connect": device.connect, "arch": device.arch, "description": device.description}
        row |= {"engines": " ".join(device.engines), "emulated": device.emulated}
        if reach:
            failed = isinstance(answer, EdgeavError)
            row |= {"reachable": not failed, "facts": None if failed else answer}
            row |= {"state": f"no: {str(answer).splitlines()[0]}" if failed else _state(device, answer)}
        rows.append(row)
    return rows


def profile_all(bundle: Path, devices: Sequence[Device], load: Load, wait_s: int = 0) -> Fleet:
    """The bundle on each device, all at the same time."""
    read_bundle(bundle)  # a damaged bundle is one error, not one a device
    names = [device.name for device in devices]
    spec.distinct(names, "--device")
    found = _each(devices, lambda one: profile(bundle, one, load.workload(one), not one.emulated, wait_s, load.clip))
    profiles = [one for one in found if isinstance(one, Profile)]
    errors = {name: str(one) for name, one in zip(names, found, strict=True) if isinstance(one, EdgeavError)}
    return Fleet(profiles, errors)


def _each(devices: Sequence[Device], work: Callable[[Device], T]) -> list[T | EdgeavError]:
    """work(device) of all, in threads: their result, or their user's mistake. Bugs are raised."""

    def attempt(device: Device) -> T | EdgeavError:
        try:
            return work(device)
        except EdgeavError as error:
            return error

    with ThreadPoolExecutor(min(len(devices), AT_ONCE) or 1) as pool:
        return list(pool.map(attempt, devices))


def _facts(device: Device) -> dict[str, Any]:
    """What the device says of itself."""
    if device.address.kind == "local" and device.runner == "python":
        from edgeav.runtime.agent import facts

        found = facts()
        check_identity(device, found)
        return found
    return on_device(device, _ask)


def _ask(session: Session) -> dict[str, Any]:
    with TemporaryDirectory(prefix="edgeav-agent-") as scratch:
        return pushed(session, Path(scratch)).facts()


def _state(device: Device, facts: dict[str, Any]) -> str:
    """ "yes: Raspberry Pi 5 …, onnxruntime 1.31.1", or which engines are missing."""
    versions = facts.get("versions", {})
    missing = [name for name in device.engines if name not in versions]
    what = ", ".join(f"{name} {versions[name]}" for name in device.engines if name in versions)
    lacks = f"; not installed: {', '.join(missing)}" if missing else ""
    imitated = " (emulated)" if device.emulated or facts.get("emulated_here") else ""
    return f"yes{imitated}: {facts.get('board') or facts['cpu']}, {what or 'no engine'}{lacks}"


def recognize(bundle: Path, clips: Path, device: Device, wait_s: int = 0) -> dict[str, Any]:
    """{runtime, texts} of the clips in an .npz file (see edgeav/runtime/agent.py), recognized on the device."""

    def job(session: Session) -> dict[str, Any]:
        with TemporaryDirectory(prefix="edgeav-agent-") as scratch:
            program = pushed(session, Path(scratch))
            program.facts()
            place = session.push("bundles", bundle_files(bundle))
            if isinstance(program, Runner):  # it takes ready inputs, which are computed here
                return program.ask(
                    ["recognize", place, session.push("clips", case_files(bundle, clips, Path(scratch)))]
                )
            sent = session.push("clips", {"clips.npz": clips})
            return program.ask(["recognize", place, f"{sent}/clips.npz", "--threads", str(device.threads)])

    check_engine(bundle, device)
    return on_device(device, job, wait_s)
