"""Camera and microphone as threads that put what they get into one queue, each with the time it came.

Sound comes from ALSA's `arecord`, pictures from `rpicam-vid` (the Pi's own cameras) or from a V4L2 device (USB) through
OpenCV: programs and a library that are there anyway, so that nothing is compiled. A source that fails or ends says why,
once, as its last event: the app goes on with the other one.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Queue
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeav.errors import EdgeavError
from edgeav.runtime.inputs import SAMPLE_RATE_HZ, VIDEO_FPS

Kind = Literal["microphone", "camera"]
BLOCK = SAMPLE_RATE_HZ * 80 // 1000  # samples: 80 ms, a step of most models
WIDTH, HEIGHT = 640, 480
MOST_WAITING = VIDEO_FPS  # events: while more of them wait than a second has pictures, new pictures are dropped
PICTURE_BYTES = WIDTH * HEIGHT * 3 // 2  # YUV 4:2:0: the gray picture, then the colors at a quarter of its size
LAST_WORDS = 300  # characters of what a program says when it fails


class Event(NamedTuple):
    """(S,) float32 samples, an (H, W) uint8 picture, or why there are no more, and when (seconds, monotonic)."""

    kind: Kind
    data: Any
    at_s: float


class Source(threading.Thread):
    """Runs `read` until it ends or `close` is called. `read` raises EdgeavError for a device that is not there."""

    def __init__(self, kind: Kind, read: Callable[[Source], Iterator[NDArray]], events: Queue[Event]) -> None:
        super().__init__(name=kind, daemon=True)
        self.kind: Kind = kind
        self.stopped = threading.Event()
        self._read, self._events = read, events
        self._program: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        why = "it failed: a mistake of this program, shown above"
        try:
            for data in self._read(self):
                if self.stopped.is_set():
                    return
                if self.kind == "microphone" or self._events.qsize() < MOST_WAITING:
                    self._events.put(Event(self.kind, data, time.monotonic()))
            why = "it ended"
        except EdgeavError as error:
            why = str(error)
        finally:
            self._end_program()
            if not self.stopped.is_set():
                self._events.put(Event(self.kind, why, time.monotonic()))

    def close(self) -> None:
        self.stopped.set()
        self._end_program()
        self.join(5)

    def blocks(self, command: Sequence[str], size: int, install: str) -> Iterator[bytes]:
        """What a program writes to its stdout, `size` bytes at a time. EdgeavError with its own words when it fails."""
        program = shutil.which(command[0])
        if program is None:
            raise EdgeavError(f"{command[0]} is not installed: {install}")
        self._program = subprocess.Popen(
            [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._program.stdout and self._program.stderr
        said: list[bytes] = []
        listener = threading.Thread(target=lambda pipe: said.extend(pipe), args=(self._program.stderr,), daemon=True)
        listener.start()  # a full pipe would stop the program
        while len(block := self._program.stdout.read(size)) == size:
            yield block
        code = self._program.wait()
        listener.join(1)
        if code:
            words = b"".join(said).decode("utf-8", "replace").strip()[-LAST_WORDS:]
            raise EdgeavError(f"{command[0]} (exit {code}): {words or 'it says nothing'}")

    def _end_program(self) -> None:
        if self._program is not None and self._program.poll() is None:
            self._program.terminate()
            try:
                self._program.wait(2)
            except subprocess.TimeoutExpired:
                self._program.kill()
                self._program.wait()


def microphone(device: str, events: Queue[Event]) -> Source:
    """`device`: a name of `arecord -L`, such as default or plughw:1,0."""
    command = ["arecord", "-q", "-D", device, "-t", "raw", "-f", "S16_LE", "-r", str(SAMPLE_RATE_HZ), "-c", "1"]

    def read(source: Source) -> Iterator[NDArray[np.float32]]:
        for block in source.blocks(command, 2 * BLOCK, "sudo apt install alsa-utils"):
            yield (np.frombuffer(block, "<i2") / 32768).astype(np.float32)

    return Source("microphone", read, events)


def camera(device: str, events: Queue[Event]) -> Source:
    """`device`: rpicam for the Pi's own camera, or a V4L2 device such as /dev/video0."""
    return Source("camera", _pi_camera if device == "rpicam" else lambda source: _v4l2(device), events)


def usual_camera() -> str:
    return "rpicam" if shutil.which("rpicam-vid") else "/dev/video0"


def _pi_camera(source: Source) -> Iterator[NDArray[np.uint8]]:
    command = ["rpicam-vid", "-n", "-t", "0", "--codec", "yuv420", "--flush", "--framerate", str(VIDEO_FPS)]
    command += ["--width", str(WIDTH), "--height", str(HEIGHT), "-o", "-"]
    for block in source.blocks(command, PICTURE_BYTES, "sudo apt install rpicam-apps"):
        yield np.frombuffer(block, np.uint8, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)


def _v4l2(device: str) -> Iterator[NDArray[np.uint8]]:
    import cv2

    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise EdgeavError(f"{device} cannot be opened: no camera, or another program has it")
    try:
        for property_, value in ((cv2.CAP_PROP_FRAME_WIDTH, WIDTH), (cv2.CAP_PROP_FRAME_HEIGHT, HEIGHT)):
            capture.set(property_, value)
        while True:
            there, picture = capture.read()
            if not there:
                raise EdgeavError(f"{device} gives no more pictures")
            yield np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
    finally:
        capture.release()
