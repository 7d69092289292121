"""How commands and files reach a device: one small protocol, three ways to speak it.

A connection runs an argument list, streams a file in, streams a file out. All else (atomic pushes, locks, retries: see
push.py and session.py) is built on that in POSIX shell, with every name as a quoted argument, so that a Raspberry Pi, a
phone and this machine are treated alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeav.connect.address import parse
from edgeav.errors import EdgeavError

if TYPE_CHECKING:
    from edgeav.device import Device

LAST_LINES = 15


class Done(NamedTuple):
    """How a command ended. Above 128: by signal `code` - 128, as shells say it."""

    code: int
    out: str
    err: str

    @classmethod
    def of(cls, returncode: int, out: bytes | None, err: bytes | None) -> Done:
        """Of a process of Python's kind, whose code is negative after a signal."""
        return cls(128 - returncode if returncode < 0 else returncode, decoded(out), decoded(err))

    @property
    def said(self) -> str:
        """The last lines of what it had to say, for an error."""
        return "\n  ".join((self.err.strip() or self.out.strip()).splitlines()[-LAST_LINES:])


class Dropped(EdgeavError):
    """The connection broke; the same work may succeed on a new one."""


class Connection(Protocol):
    """An open way to a device. Every call raises Dropped when the connection breaks."""

    def run(self, command: Sequence[str], timeout_s: float = 60, tethered: bool = False) -> Done:
        """Run an argument list there (quoted where a shell is on the way).

        Its input is empty; tethered: silent, but open until the command ends or the connection breaks.
        """
        ...

    def put(self, local: Path, remote: str) -> Done:
        """Stream a file to `remote`. Not atomic: push.py is."""
        ...

    def get(self, remote: str, local: Path) -> Done:
        """Stream a file from there to `local`."""
        ...

    def hold(self, command: Sequence[str]) -> AbstractContextManager[str]:
        """Run it as long as the context lasts; yields its first line. Its input ends with the context, or with us."""
        ...

    def close(self) -> None: ...


def connect(device: Device) -> Connection:
    """A connection to `device`; EdgeavError says why there is none, Dropped if a later try may do better."""
    address = parse(device.connect)
    match address.kind:
        case "local":
            from edgeav.connect.local import Local

            return Local()
        case "ssh":
            from edgeav.connect.ssh import Ssh

            return Ssh(address, device.key, device.known_hosts)
        case "adb":
            from edgeav.connect.adb import Adb

            return Adb(address.host)
        case "manual":
            raise EdgeavError(f"{device.name} is not reached from here: its app measures, for --measured")


def decoded(data: bytes | None) -> str:
    """What a command wrote; it need not be UTF-8."""
    return (data or b"").decode("utf-8", "replace")


def shell(script: str, *arguments: str) -> list[str]:
    """A POSIX script as an argument list; what varies comes as $1, $2 …, never as part of the script."""
    return ["sh", "-c", script, "sh", *arguments]


PUT = 'cat > "$1"'
GET = 'cat < "$1"'
