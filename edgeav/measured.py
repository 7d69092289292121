"""Profiles that a device's own app measured (a page in a browser, a phone): such a device cannot be asked from here.

The file went through somebody's hands: it must be a whole profile, of the very bundle that it is said to be of, on the
device that is named, with every golden vector of the bundle replayed. Then it is shown and compared like any other.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from edgeav.device import Device
from edgeav.errors import EdgeavError
from edgeav.measuring import check_engine
from edgeav.profiling import Profile
from edgeav.runtime.bench import identity
from edgeav.runtime.bundle import Bundle, read_bundle


def read_measured(path: Path, bundle_folder: Path, device: Device) -> Profile:
    """The profile in `path`. EdgeavError says all that is wrong with it."""
    if device.address.kind != "manual":
        raise EdgeavError(
            f"{device.name} (connect: {device.connect}) is measured from here; --measured is for `connect: manual`"
        )
    check_engine(bundle_folder, device)
    bundle, found = read_bundle(bundle_folder), _read(path)
    wrong = _differences(found, bundle, device)
    if wrong:
        raise EdgeavError("\n  ".join([f"{path} is not of {bundle_folder} on {device.name}:", *wrong]))
    return found


def _read(path: Path) -> Profile:
    try:
        return Profile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EdgeavError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors())
        raise EdgeavError("\n  ".join([f"{path} is no profile of this version of edgeav:", *lines])) from None


def _differences(found: Profile, bundle: Bundle, device: Device) -> list[str]:
    wanted = {"device": device.name, "emulated": device.emulated, **identity(bundle)}
    pairs = [(name, getattr(found, name), value) for name, value in wanted.items()]
    pairs.append(("golden.cases", found.golden.cases, len(bundle.golden)))
    wrong = [f"{name}: {value!r}, expected {expected!r}" for name, value, expected in pairs if value != expected]
    allowed = max((case.tolerance for case in bundle.golden_cases()), default=0.0)
    if not found.golden.max_abs <= allowed:  # written so that NaN fails too
        wrong.append(f"golden.max_abs: {found.golden.max_abs:g}, allowed are {allowed:g}")
    return wrong
