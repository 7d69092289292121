"""A folder of files onto a device, whole or not at all.

It grows under a temporary name, every file is hashed on the device, and only a folder of which every hash is right gets
its name by a rename, which is atomic. The name is made of the hashes: what is there already is checked, not sent again,
and after a dropped connection only the missing files are sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from edgeav.connect import Connection, Done, shell
from edgeav.errors import EdgeavError
from edgeav.runtime.bundle import FILE, read_bundle
from edgeav.runtime.bundle_check import sha256

SPARE_MB = 16  # left free on the device
HASHES = 'cd "$1" 2>/dev/null || exit 0; shift; sha256sum -- "$@" 2>/dev/null; exit 0'
FOLDERS = 'for folder; do mkdir -p -- "$folder" || exit 1; done'
FREE_KB = 'df -Pk -- "$1" | tail -n 1 | { read -r device blocks used free rest; echo "$free"; }'
KEEP = 'rm -rf -- "$2" && mkdir -p -- "${2%/*}" && mv -- "$1" "$2"'
HASHING_S = 600  # of a large bundle on an SD card
Files = Mapping[str, Path]  # name in the pushed folder -> file here


def bundle_files(folder: Path) -> dict[str, Path]:
    """Every file of a bundle that was verified here first: nothing damaged travels."""
    bundle = read_bundle(folder)
    return {name: folder / name for name in (*bundle.files, FILE)}


def push(connection: Connection, root: str, kind: str, files: Files) -> str:
    """Put `files` into root/kind/<hash of all>/ on the device. -> that folder. The caller holds the device's lock."""
    hashes = {name: sha256(path) for name, path in files.items()}
    _check_names(hashes)
    key = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:32]
    place, incoming = f"{root}/{kind}/{key}", f"{root}/incoming/{key}"
    if _hashes_there(connection, place, hashes) == hashes:
        return place
    there = _hashes_there(connection, incoming, hashes)
    missing = [name for name in hashes if there.get(name) != hashes[name]]
    _send(connection, root, incoming, {name: files[name] for name in missing})
    _check_arrival(_hashes_there(connection, incoming, hashes), hashes)
    checked(connection.run(shell(KEEP, incoming, place)), f"cannot name {place}")
    return place


def checked(done: Done, what: str) -> Done:
    """The same; EdgeavError with the device's own words when the command failed."""
    if done.code:
        raise EdgeavError(f"{what} on the device (exit {done.code}): {done.said or 'it said nothing'}")
    return done


def _send(connection: Connection, root: str, incoming: str, files: Files) -> None:
    folders = sorted({f"{incoming}/{name}".rpartition("/")[0] for name in files} | {incoming})
    checked(connection.run(shell(FOLDERS, *folders)), f"cannot make {incoming}")
    needed_mb = sum(path.stat().st_size for path in files.values()) / 1e6
    free_mb = _free_mb(connection, root)
    if free_mb < needed_mb + SPARE_MB:
        raise EdgeavError(
            f"the device has {free_mb:.0f} MB free in {root}; needed are {needed_mb:.0f} + {SPARE_MB} to spare. "
            f"Free some space there (old bundles lie in {root}/bundles), or name another place with `folder:`."
        )
    for name, path in files.items():
        checked(connection.put(path, f"{incoming}/{name}"), f"cannot write {name}")


def _hashes_there(connection: Connection, folder: str, names: Mapping[str, str]) -> dict[str, str]:
    """sha256 by name, of those files that are there."""
    done = connection.run(shell(HASHES, folder, *names), HASHING_S)
    if "not found" in done.err:
        raise EdgeavError("the device has no sha256sum (coreutils, busybox or toybox): nothing can be verified there")
    pairs = (line.partition("  ")[::2] for line in done.out.splitlines())
    return {name: digest for digest, name in pairs}


def _check_arrival(there: Mapping[str, str], hashes: Mapping[str, str]) -> None:
    wrong = [f"{name}: {there.get(name, 'missing')}, sent {digest}" for name, digest in hashes.items()
             if there.get(name) != digest]  # fmt: skip
    if wrong:
        raise EdgeavError("\n  ".join(["files arrived damaged (sha256); nothing of them is run:", *wrong]))


def _free_mb(connection: Connection, folder: str) -> float:
    text = checked(connection.run(shell(FREE_KB, folder)), f"cannot ask for the free space of {folder}").out.strip()
    if not text.isdigit():
        raise EdgeavError(f"cannot ask for the free space of {folder} on the device: df says {text!r}")
    return int(text) * 1024 / 1e6


def _check_names(names: Mapping[str, str]) -> None:
    odd = [name for name in names if "\n" in name or "\\" in name]
    if odd:
        raise EdgeavError(f"{odd[0]!r}: a file to push may have neither a line break nor a backslash in its name")
