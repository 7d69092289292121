"""This machine as a device: subprocesses, through the same shell scripts as on the others."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edgeav.connect import GET, PUT, Done, decoded, shell
from edgeav.errors import EdgeavError

TRANSFER_S = 3600


class Local:
    """Nothing to break: no call raises Dropped."""

    def run(self, command: Sequence[str], timeout_s: float = 60, tethered: bool = False) -> Done:
        return run_tethered(command, timeout_s) if tethered else run(command, timeout_s)

    def put(self, local: Path, remote: str) -> Done:
        with local.open("rb") as file:
            return run(shell(PUT, remote), TRANSFER_S, stdin=file)

    def get(self, remote: str, local: Path) -> Done:
        with local.open("wb") as file:
            return run(shell(GET, remote), TRANSFER_S, stdout=file)

    @contextmanager
    def hold(self, command: Sequence[str]) -> Iterator[str]:
        with held(command) as line:
            yield line

    def close(self) -> None:
        """Nothing is open."""


def run_tethered(command: Sequence[str], timeout_s: float) -> Done:
    """`run` with an input that is open, and silent, until the process ends or this one dies."""
    theirs, ours = os.pipe()
    try:
        with os.fdopen(theirs, "rb") as stdin:
            return run(command, timeout_s, stdin)
    finally:
        os.close(ours)


def run(
    command: Sequence[str], timeout_s: float, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
) -> Done:
    """A process of this machine from start to end; EdgeavError when it does not end in time or cannot start."""
    try:
        done = subprocess.run(
            list(command),
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise EdgeavError(f"{command[0]} did not end in {timeout_s:g} s and was stopped") from None
    except OSError as error:
        raise EdgeavError(f"{command[0]}: {error.strerror}") from error
    return Done.of(done.returncode, done.stdout, done.stderr)


@contextmanager
def held(command: Sequence[str]) -> Iterator[str]:
    """A process of this machine that lasts as long as the context; yields its first line."""
    process = subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    try:
        yield decoded(process.stdout.readline())
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
