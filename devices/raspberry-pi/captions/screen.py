"""What is shown: captions on stdout (or JSON lines, for programs and the journal), all else on stderr."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any, TextIO

from edgeav.runtime.health import condition
from edgeav.runtime.live import Caption

CONDITION_EVERY_S = 10.0  # vcgencmd is a process of its own


class Screen:
    """A caption that grows is rewritten in its line, on a terminal; its unsure words stand in brackets."""

    def __init__(self, as_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._json, self._out, self._err = as_json, out or sys.stdout, err or sys.stderr
        self._asked_s, self._condition = -CONDITION_EVERY_S, dict[str, Any]()

    def caption(self, caption: Caption) -> None:
        if self._json:
            self._print_json({"caption": " ".join(caption.words), **asdict(caption), **self._health()})
        elif caption.final:
            self._rewrite(" ".join(caption.words) + "\n")
            self.say(self._numbers(caption))
        elif self._out.isatty():
            sure, open_ = (" ".join(part) for part in (caption.words[: caption.sure], caption.words[caption.sure :]))
            self._rewrite(f"{sure} [{open_}]" if open_ else sure)

    def transcript(self, file: str, text: str, rtf: float, notes: list[str]) -> None:
        if self._json:
            self._print_json({"file": file, "text": text, "rtf": rtf, "notes": notes, **self._health()})
            return
        print(text, file=self._out, flush=True)
        for note in notes:
            self.say(f"{file}: {note}")
        self.say(f"RTF {rtf:.3f}{self._told_health()}")

    def say(self, text: str) -> None:
        """For the user: what is missing, what came back, numbers."""
        print(f"captions: {text}", file=self._err, flush=True)

    def _numbers(self, caption: Caption) -> str:
        waited = f"{caption.seconds:.1f} s, text {caption.waited_ms:.0f} ms after its end"
        return f"{waited}, RTF {caption.rtf:.2f}{self._told_health()}"

    def _told_health(self) -> str:
        now = self._health()
        held_back = now["throttling"]
        told = "" if now["temperature_c"] is None else f", {now['temperature_c']:.0f} °C"
        return told + (f", held back: {', '.join(held_back)}" if held_back else "")

    def _health(self) -> dict[str, Any]:
        """temperature_c, frequency_mhz, throttling; None where the machine does not tell."""
        if time.monotonic() - self._asked_s >= CONDITION_EVERY_S:
            self._asked_s, self._condition = time.monotonic(), condition()
        return self._condition

    def _rewrite(self, text: str) -> None:
        start = "\r\x1b[K" if self._out.isatty() else ""
        print(start + text, end="", file=self._out, flush=True)

    def _print_json(self, data: dict[str, Any]) -> None:
        print(json.dumps(data, ensure_ascii=False), file=self._out, flush=True)
