"""A real sshd on 127.0.0.1 with a host key of its own, and a wire to it that can be cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host_key
AuthorizedKeysFile {place}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
"""


@dataclass
class Sshd:
    """The server; `known_hosts` vouches for it, `key` opens it."""

    place: Path
    port: int
    process: subprocess.Popen

    @property
    def key(self) -> str:
        return str(self.place / "user_key")

    @property
    def known_hosts(self) -> str:
        return str(self.place / "known_hosts")

    def vouch_for(self, port: int) -> None:
        """Add our host key under another port, for a wire that ends here."""
        host_key = (self.place / "host_key.pub").read_text()
        with open(self.known_hosts, "a") as file:
            file.write(f"[127.0.0.1]:{port} {host_key}")


def start(place: Path) -> Sshd:
    """Skips where there is no sshd."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs an SSH server: apt-get install openssh-server")
    pytest.importorskip("asyncssh", reason="pip install 'edgeav[devices]'")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own requirement as root
    for name in ("host_key", "user_key", "other_key"):
        make_key(place / name)
    shutil.copy(place / "user_key.pub", place / "authorized_keys")
    port = free_port()
    (place / "config").write_text(CONFIG.format(port=port, place=place))
    process = subprocess.Popen([SSHD, "-D", "-f", str(place / "config"), "-E", str(place / "log")])
    server = Sshd(place, port, process)
    server.vouch_for(port)
    wait_for(port, place / "log")
    return server


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, log: Path, seconds: float = 20) -> None:
    """Until somebody answers there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(log.read_text() if log.exists() else "no server")


@dataclass
class Wire:
    """A TCP relay to the server. Each of the first connections is cut after so many bytes from the client."""

    target: int
    cut_after: list[int]
    carried: list[int] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Wire:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts; closing alone does not
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            number = len(self.carried)
            self.carried.append(0)
            server = socket.create_connection(("127.0.0.1", self.target))
            limit = self.cut_after[number] if number < len(self.cut_after) else None
            threading.Thread(target=self._relay, args=(client, server, number, limit), daemon=True).start()
            threading.Thread(target=self._relay, args=(server, client, None, None), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, number: int | None, limit: int | None) -> None:
        try:
            while data := source.recv(65536):
                if number is not None:
                    self.carried[number] += len(data)
                    if limit is not None and self.carried[number] > limit:
                        break
                sink.sendall(data)
        except OSError:
            pass  # the other direction has cut it
        for end in (source, sink):
            with contextlib.suppress(OSError):  # already down
                end.shutdown(socket.SHUT_RDWR)
            end.close()
