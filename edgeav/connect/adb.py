"""An Android device through the adb client (https://developer.android.com/tools/adb); always by its serial.

`adb shell` joins its arguments with spaces and hands them to the device's shell, so they are quoted here.
"""

from __future__ import annotations

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
GONE = ("device offline", "no devices/emulators found", "closed", "protocol fault", "device still connecting")


class Adb:
    """One device by its serial; commands run as the shell user, in /."""

    def __init__(self, serial: str) -> None:
        program = shutil.which("adb")
        if program is None:
            raise EdgeavError("adb is not installed. Debian: apt install adb; others: Android's platform tools")
        self.where, self._adb = f"adb:{serial}", (program, "-s", serial)
        done = self._ask("get-state")
        if done.out.strip() != "device":
            raise EdgeavError(f"{self.where} is not ready: {done.said or 'no answer'}. To see what is: adb devices -l")

    def run(self, command: Sequence[str], timeout_s: float = 60, tethered: bool = False) -> Done:
        words = [*self._adb, "shell", "-T", shlex.join(command)]
        return self._checked(run_tethered(words, timeout_s) if tethered else run(words, timeout_s))

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
        """The same; Dropped when it is the client that speaks of a lost device."""
        lines = [line for line in done.err.splitlines() if line.startswith(("error:", "adb: error:", "adb: device"))]
        if done.code and any(word in line for line in lines for word in (*GONE, "not found")):
            raise Dropped(f"{self.where}: {lines[-1]}")
        return done
