"""What `connect:` of a device file may say: local, ssh:user@host[:port], adb:serial, manual."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ALLOWED = "local, ssh:USER@HOST, ssh:USER@HOST:PORT, adb:SERIAL, or manual"
SSH_PORT = 22
# user@ may be left out; a host of IPv6 stands in brackets. What a host may contain is for the resolver to say: no part
# of an address ever reaches a shell.
_SSH = re.compile(r"(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^@\[\]:]+)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class Address:
    """How one device is reached; `host` is the serial of an adb device."""

    kind: Literal["local", "ssh", "adb", "manual"]
    host: str = ""
    user: str | None = None
    port: int = SSH_PORT


def parse(text: str) -> Address:
    """ValueError (for pydantic) says what is allowed."""
    kind, colon, rest = text.partition(":")
    if kind in ("local", "manual") and not colon:
        return Address(kind)  # type: ignore[arg-type]
    if kind == "adb" and rest.strip():
        return Address("adb", rest)
    if kind == "ssh" and (found := _SSH.fullmatch(rest)):
        port = int(found["port"] or SSH_PORT)
        if 0 < port < 65536:
            return Address("ssh", found["host"].strip("[]"), found["user"], port)
    raise ValueError(f"{text!r} is no address; allowed: {ALLOWED}")
