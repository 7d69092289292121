"""Whether the other workers of a search still work: each touches a file of its own every few seconds.

Time is compared by the stamps of such files alone, which one file server gives: clocks of machines differ.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY_S = 10.0
GONE_AFTER_S = 120.0


class Pulse:
    """Of this worker, in `folder`; `alive` asks for another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"

    @contextmanager
    def beating(self) -> Iterator[Pulse]:
        """For the time of the block; nobody is waited for who has left it."""
        stop = threading.Event()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file(self.name).touch()
        thread = threading.Thread(target=self._beat, args=(stop,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()
            self._file(self.name).unlink(missing_ok=True)

    def alive(self, name: str) -> bool:
        """Whether the worker of that name still works; on this machine a dead process is known at once."""
        host, _, process = name.rpartition("/")[0].rpartition("/")
        here = socket.gethostname()
        if host == here and process.isdigit() and not _exists(int(process)):
            return False
        own = self._file(self.name)
        own.touch()
        try:
            return own.stat().st_mtime - self._file(name).stat().st_mtime < GONE_AFTER_S
        except FileNotFoundError:
            return False

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(EVERY_S):
            self._file(self.name).touch()

    def _file(self, name: str) -> Path:
        return self.folder / name.replace("/", "_")


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
