"""python -m captions                    captions of what camera and microphone hear and see, until Ctrl-C
python -m captions talk.mp4 …         transcripts of files

Exit code 0: stopped, or all files read; 2: neither camera nor microphone, a bundle or file that cannot be used.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import get_args

from captions.screen import Screen
from captions.sources import Event, Source, camera, microphone, usual_camera
from edgeav.errors import EdgeavError
from edgeav.runtime.face import open_face_detector
from edgeav.runtime.inputs import Readings
from edgeav.runtime.live import Live
from edgeav.runtime.transcriber import Transcriber

BUNDLE = Path("~/edgeav/bundle").expanduser()  # where install.sh puts it
REST = {"camera": "going on with sound alone", "microphone": "going on with lips alone"}  # what is left without it
NO_FACE_S = 3.0  # without a face are worth a word
TICK_S = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    args = _arguments(arguments)
    screen = Screen(args.json)
    try:
        transcriber = Transcriber(args.bundle, args.threads, args.face_model, args.readings)
        return _read_files(transcriber, args.files, screen) if args.files else _listen(transcriber, args, screen)
    except EdgeavError as error:
        screen.say(str(error))
        return 2


def _read_files(transcriber: Transcriber, files: Sequence[Path], screen: Screen) -> int:
    """A bad file is said and does not stop the others."""
    code = 0
    for path in files:
        try:
            found = transcriber.transcribe(path)
        except EdgeavError as error:
            screen.say(str(error))
            code = 2
        else:
            screen.transcript(str(path), found.text, found.rtf, found.notes)
    return code


def _listen(transcriber: Transcriber, args: argparse.Namespace, screen: Screen) -> int:
    takes, events = transcriber.bundle.features, Queue[Event]()
    sources: dict[str, Source] = {}
    if takes.audio and args.microphone != "none":
        sources["microphone"] = microphone(args.microphone, events)
    if takes.video and args.camera != "none":
        sources["camera"] = camera(args.camera, events)
    if not sources:
        raise EdgeavError("nothing to listen to or to look at: the model takes neither, or both are switched off")
    live = Live(transcriber, open_face_detector(args.face_model, args.threads), screen.caption)
    for source in sources.values():
        source.start()
    screen.say(f"listening with {' and '.join(sources)}")
    until_s = time.monotonic() + args.seconds if args.seconds else float("inf")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # systemd's stop is Ctrl-C's
    try:
        _work(live, events, sources, screen, until_s)
    except KeyboardInterrupt:
        live.close()  # what is being spoken is still read
    finally:
        for source in sources.values():
            source.close()
    return 0


def _work(live: Live, events: Queue[Event], sources: dict[str, Source], screen: Screen, until_s: float) -> None:
    """Until the time is over. EdgeavError when no source is left."""
    present, face = set(sources), _Face(screen)
    while time.monotonic() < until_s:
        try:
            event = events.get(timeout=TICK_S)
        except Empty:
            continue
        if isinstance(event.data, str):
            present.discard(event.kind)
            screen.say(f"no {event.kind}: {event.data}" + (f"; {REST[event.kind]}" if present else ""))
            if not present:
                live.close()
                raise EdgeavError("neither camera nor microphone is left. Connect one and start again.")
        elif event.kind == "microphone":
            live.samples(event.data, event.at_s)
        else:
            live.picture(event.data, event.at_s)
            face.look(live.pictures.sees_a_face(), event.at_s)
    live.close()


class _Face:
    """Says when the face is lost for a while, and when it is back."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._seen_s, self._lost = screen, None, False

    def look(self, seen: bool | None, at_s: float) -> None:
        self._seen_s = at_s if seen or self._seen_s is None else self._seen_s
        lost = at_s - self._seen_s > NO_FACE_S
        if lost != self._lost:
            self._screen.say("no face in sight: sound alone" if lost else "a face is in sight")
        self._lost = lost


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m captions", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", type=Path, nargs="*", help="sound or video files; none: camera and microphone")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help=f"default {BUNDLE}")
    parser.add_argument("--microphone", default="default", help="an ALSA device (arecord -L), or none")
    parser.add_argument("--camera", default=usual_camera(), help="rpicam, a V4L2 device such as /dev/video0, or none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--face-model", type=Path, help="YuNet ONNX file, for a better and faster face search")
    parser.add_argument("--readings", choices=get_args(Readings), default="one", help="surest: read again if unsure")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
