"""An Android device through the adb client (https://developer.android.com/tools/adb); always by its serial.

`adb shell` joins its arguments with spaces and hands them to the device's shell, so they are quoted here.
"""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgeav.connect import Done, Dropped
from edgeav.connect.local import TRANSFER_S, held, run, run_tethered
from edgeav.errors import EdgeavError

ANSWER_S = 30
# What the client says when the device, not the command, has failed.
GONE = (
    "device offline", "no devices/emulators found", "' not found", "closed", "protocol fault", "still connecting",
    "connection reset", "couldn't read from device", "failed to read copy response", "couldn't send", "failed to send",
)  # fmt: skip
OVER_TCP = re.compile(r"[^:]+:\d+")


class Adb:
    """One device by its serial; commands run as the shell user, in /."""

    def __init__(self, serial: str) -> None:
        program = shutil.which("adb")
        if program is None:
            raise EdgeavError("adb is not installed. Debian: apt install adb; others: Android's platform tools")
        self.where, self._adb = f"adb:{serial}", (program, "-s", serial)
        done = self._ask("get-state")
        if done.out.strip() != "device" and OVER_TCP.fullmatch(serial):  # adb forgets one that it has lost
            run([*self._adb, "connect", serial], ANSWER_S)
            done = self._ask("get-state")
        if done.out.strip() != "device":
            kind = Dropped if _gone(done) else EdgeavError  # of one that asks its owner first, say, no try is of use
            raise kind(f"{self.where} is not ready: {done.said or 'no answer'}. To see what is: adb devices -l")

    def run(self, command: Sequence[str], timeout_s: float = 60, tethered: bool = False) -> Done:
        """Its output ends with a word of ours: adb's client exits with 0, and says nothing, when the device is lost."""
        mark = f"ended-{secrets.token_hex(8)}:"
        words = [*self._adb, "shell", "-T", f"{shlex.join(command)}; echo {mark}$?"]
        done = run_tethered(words, timeout_s) if tethered else run(words, timeout_s)
        out, found, code = done.out.rpartition(mark)
        if not found or not code.strip().isdigit():
            raise Dropped(f"{self.where}: it was lost before the command ended. {done.err.strip()}".rstrip())
        return Done(int(code), out, done.err)

    def put(self, local: Path, remote: str) -> Done:
        return self._checked(run([*self._adb, "push", str(local.resolve()), remote], TRANSFER_S))

    def get(self, remote: str, local: Path) -> Done:
        return self._checked(run([*self._adb, "pull", remote, str(local.resolve())], TRANSFER_S))

    @contextmanager
    def hold(self, command: Sequence[str]) -> Iterator[str]:
        with held([*self._adb, "shell", "-T", shlex.join(command)]) as line:
            yield line

    def close(self) -> None:
        """The adb server keeps the connection; it is not ours."""

    def _ask(self, word: str) -> Done:
        return run([*self._adb, word], ANSWER_S)

    def _checked(self, done: Done) -> Done:
        """The same, of a transfer; Dropped when it is the client that speaks of a lost device."""
        if done.code and _gone(done):
            raise Dropped(f"{self.where}: {done.said}")
        return done


def _gone(done: Done) -> bool:
    return any(word in done.err + done.out for word in GONE)
