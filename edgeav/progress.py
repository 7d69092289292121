"""How long work tells how far it is: `say` a line, `track` a loop, `busy` for a call that cannot be counted.

Library code takes a `Progress` and stays silent with the base class; the command line passes
`TerminalProgress`, which writes to stderr only, so that stdout holds nothing but results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0  # in a log file, where a bar cannot move


class Progress:
    """Says nothing: the default for library code and tests."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def track(self, items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
        """The same items, with a bar and the time that is left. `total` where `items` has no len()."""
        yield from items

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """A running clock beside one long call."""
        yield


class TerminalProgress(Progress):
    """Bars on a terminal; in a log a line when a task begins, every ten seconds, and when it ends."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._running = 0

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def track(self, items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
        total = total if total is not None else _length(items)
        if not self.console.is_terminal:
            yield from _log(items, text, total)
            return
        with self._bar(text, total) as advance:
            for item in items:
                yield item
                advance()

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        if self.console.is_terminal:
            with self._bar(text, None):
                yield
            return
        start = time.monotonic()
        print(f"{text} …", file=sys.stderr, flush=True)
        yield
        print(f"{text}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)

    @contextmanager
    def _bar(self, text: str, total: int | None):
        """One line of the display, which runs while any bar does; yields the function that moves this bar."""
        task = self._bars.add_task(text, total=total)
        self._running += 1
        self._bars.start()
        try:
            yield lambda: self._bars.advance(task)
        finally:
            self._bars.remove_task(task)
            self._running -= 1
            if not self._running:
                self._bars.stop()


def _length(items: Iterable[T]) -> int | None:
    return len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]


def _log(items: Iterable[T], text: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            left = f", about {(now - start) / done * (total - done):.0f} s left" if total else ""
            print(f"{text}: {done}/{total or '?'}{left}", file=sys.stderr, flush=True)
            last = now
    print(f"{text}: {done} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
