"""Work on a device: connect, take its lock, push, run, pull; all of it again when the connection breaks.

The lock is flock(2) held by a shell at the end of our connection: it is free the moment that shell is gone, so a dead
host leaves no stale lock. What runs there holds a second one and is killed when our end of it closes: two measurements
never disturb each other, whatever became of whoever started the first.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import secrets
import shlex
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeav.connect import Connection, Done, Dropped, connect, shell
from edgeav.connect.push import Files, checked, push
from edgeav.errors import EdgeavError

if TYPE_CHECKING:
    from edgeav.device import Device

T = TypeVar("T")
PAUSES_S = (0.5, 2.0, 5.0)  # before each further try
HELD, BUSY = "held", 75  # 75: EX_TEMPFAIL
_WAIT = """waited=0
until flock -n 9; do
  [ "$waited" -ge "$2" ] && { echo "busy: $(cat "$1.owner" 2>/dev/null)"; exit 75; }
  sleep 1; waited=$((waited + 1))
done
"""
MAKE_ROOT = 'mkdir -p -- "$1" && cd -- "$1" && pwd -P && command -v flock'
LOCK = f"""exec 9>>"$1" || exit 1
{_WAIT}printf '%s' "$3" > "$1.owner"; echo held; exec cat > /dev/null
"""
# $1 lock, $2 seconds to wait for an orphan, $3… the command. Its input is ours: when that ends, so does the command.
# The shell itself reads it: a `cat` would outlive its shell, and adbd waits for whoever holds the end of its socket.
RUN = f"""exec 3<&0 9>>"$1" || exit 1
{_WAIT}shift 2
"$@" < /dev/null 3<&- & child=$!
{{ while read -r line; do :; done <&3; kill "$child"; }} > /dev/null 2>&1 9>&- & watch=$!
exec 3<&-
wait "$child"; code=$?
kill "$watch" 2> /dev/null
exit "$code"
"""
ORPHAN_S = 30


class Session:
    """An open connection with the device's lock in hand."""

    def __init__(self, device: Device, connection: Connection, root: str) -> None:
        self.device, self.connection, self.root = device, connection, root

    def push(self, kind: str, files: Files) -> str:
        """-> the folder on the device; see push.py."""
        return push(self.connection, self.root, kind, files)

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Done:
        """Run a command there, alone, within the device's time limit. EdgeavError if it fails."""
        values = {**self.device.environment, **(environment or {})}
        words = ["env", *(f"{key}={value}" for key, value in values.items()), *command]
        limit_s = self.device.limits.seconds
        done = self.connection.run(shell(RUN, f"{self.root}/run.lock", str(ORPHAN_S), *words), limit_s + ORPHAN_S, True)
        if done.code == BUSY and "busy:" in done.out:
            raise EdgeavError(f"{self.device.name}: what an earlier run started there is still running")
        if done.code:
            how = ended(done.code)
            raise EdgeavError("\n  ".join([f"{Path(command[0]).name} on {self.device.name} {how}:", done.said]))
        return done

    def result(self, command: Callable[[str], Sequence[str]], environment: Mapping[str, str] | None = None) -> Any:
        """Run command(path) there, which writes JSON to `path`; pull and delete it. -> the JSON"""
        path = f"{self.root}/result-{secrets.token_hex(8)}.json"
        try:
            self.run(command(path), environment)
            return json.loads(self.pull(path))
        finally:
            with suppress(EdgeavError):  # a lost connection has been told already
                self.connection.run(["rm", "-f", "--", path])

    def pull(self, path: str) -> bytes:
        """The bytes of a file there."""
        with tempfile.TemporaryDirectory(prefix="edgeav-pull-") as place:
            local = Path(place) / "file"
            checked(self.connection.get(path, local), f"cannot read {path}")
            return local.read_bytes()


def on_device(device: Device, job: Callable[[Session], T], wait_s: int = 0) -> T:
    """job(session), again from the start when the connection breaks: jobs must be repeatable, and pushes resume."""
    for pause_s in (*PAUSES_S, None):
        try:
            with _opened(device, wait_s) as session:
                return job(session)
        except Dropped as error:
            if pause_s is None:
                raise EdgeavError(
                    f"{device.name}: {error} ({len(PAUSES_S) + 1} tries). What is here is kept."
                ) from error
            time.sleep(pause_s)
    raise AssertionError  # the loop above returns or raises


@contextmanager
def _opened(device: Device, wait_s: int) -> Iterator[Session]:
    connection = connect(device)
    try:
        root = _root(connection, device)
        with connection.hold(shell(LOCK, f"{root}/lock", str(wait_s), _who())) as answer:
            _check_lock(device, answer.strip())
            yield Session(device, connection, root)
    finally:
        connection.close()


def _root(connection: Connection, device: Device) -> str:
    """The folder of ours on the device, absolute."""
    done = connection.run(shell(MAKE_ROOT, device.place))
    lines = done.out.splitlines()
    if done.code and lines:
        raise EdgeavError(f"{device.name} has no flock: install util-linux, busybox or toybox there")
    return checked(done, f"{device.name}: cannot use the folder {device.place}").out.splitlines()[0]


def _check_lock(device: Device, answer: str) -> None:
    if answer == HELD:
        return
    if answer.startswith("busy:"):
        owner = answer.removeprefix("busy:").strip() or "somebody"
        raise EdgeavError(f"{device.name} is in use by {owner}. To wait for it: --wait SECONDS")
    raise Dropped(f"{device.name}: the lock was not taken: {answer or 'no answer'}")


def _who() -> str:
    return shlex.quote(f"{getpass.getuser()}@{platform.node()}, process {os.getpid()}").strip("'")


def ended(code: int) -> str:
    """An exit code in words."""
    if code <= 128 or code > 128 + 64:
        return f"failed (exit {code})"
    number = code - 128
    names = {one.value: one.name for one in signal.Signals}
    name = names.get(number, f"signal {number}")
    hint = "; Linux does that when memory runs out" if name == "SIGKILL" else ""
    return f"was killed ({name}{hint})"
