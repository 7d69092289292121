"""A headless Chromium, spoken to through a pipe (Chrome DevTools Protocol): no driver to install, no port to choose."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-sync",
    "--mute-audio", "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe", "--window-size=1220,940", "--disable-quic",
)  # fmt: skip
PATIENCE_S = 60
# Through bash, because Chromium wants the pipes as exactly 3 and 4.
LAUNCH = 'exec "$0" "$@" 3<&"$COMMANDS" 4>&"$ANSWERS"'


def find_chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. `log` collects what the page wrote to its console and what it threw."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._ids = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self.log: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Page.enable")
        self.send("Runtime.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """One command and its answer; AssertionError when Chromium refuses it."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        os.write(
            self._commands,
            json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0",
        )
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        result = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """Until the expression is true; AssertionError with the page's own words when that takes too long."""
        last = time.monotonic() + seconds
        while time.monotonic() < last:
            if value := self.evaluate(expression):
                return value
            time.sleep(0.2)
        raise AssertionError(
            f"{expression} is not true after {seconds} s; {self.evaluate('document.body.innerText')!r}; {self.log}"
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def _receive(self) -> Any:
        while b"\0" not in self._rest:
            readable, _, _ = select.select([self._answers], [], [], PATIENCE_S)
            assert readable, f"Chromium says nothing for {PATIENCE_S} s: {self.log}"
            part = os.read(self._answers, 1 << 20)
            assert part, f"Chromium went away: {self.log}"
            self._rest += part
        whole, _, self._rest = self._rest.partition(b"\0")
        return json.loads(whole)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.consoleAPICalled":
            self.log.append(" ".join(str(part.get("value", part.get("description"))) for part in parameters["args"]))
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.log.append("thrown: " + details.get("exception", {}).get("description", details["text"]))


@contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[Page]:
    """A browser with the empty profile folder `profile` and one tab, ended with the block."""
    program = find_chromium()
    assert program, "ask find_chromium first"
    (read_commands, commands), (answers, write_answers) = os.pipe(), os.pipe()
    environment = os.environ | {"COMMANDS": str(read_commands), "ANSWERS": str(write_answers)}
    command = ["bash", "-c", LAUNCH, program, *FLAGS, f"--user-data-dir={profile}", *flags]
    with (profile.parent / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, pass_fds=(read_commands, write_answers), stdout=log, stderr=log
        )
    os.close(read_commands)
    os.close(write_answers)
    try:
        yield Page(commands, answers)
    finally:
        process.terminate()
        process.wait(30)
        os.close(commands)
        os.close(answers)
