"""A corpus as its publisher leaves it -> a folder that training reads: mouths, sound, manifest.jsonl, rejected.jsonl.

Clips are prepared by several processes. Each finished one is a line in prepared.jsonl, keyed by what it was made from
(paths, sizes, dates, text, times, settings): the same command goes on after a kill, and redoes what has changed.
Clips that cannot be used do not stop the others; they are listed with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from edgeav.data.one_clip import Limits, Rejected, Whole, prepare_clip
from edgeav.data.pieces import cut_long
from edgeav.data.readers import RawClip, read_source
from edgeav.data.splits import assign_splits, first_clips
from edgeav.errors import EdgeavError
from edgeav.progress import Progress
from edgeav.runtime.face import FaceDetector, open_face_detector

JOURNAL, MANIFEST, REJECTED = "prepared.jsonl", "manifest.jsonl", "rejected.jsonl"
MAKES = 1  # raised when the same clip would be prepared otherwise: then all are done again


@dataclass(frozen=True)
class Settings:
    """`units`: the token list of Auto-AVSR lists. `seed` chooses who is held out."""

    face_model: Path | None = None
    units: Path | None = None
    limit: int | None = None
    seed: int = 0
    workers: int = 1
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Task:
    """One clip to prepare, and the key that its line in the journal gets."""

    clip: RawClip
    key: str


def prepare(source: Path, out: Path, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Fill `out`; {kind, clips, rejected: {reason: count}, notes}. EdgeavError when not a single clip can be used."""
    _check_out(source, out)
    open_face_detector(settings.face_model)  # a wrong file is an error now, not one of every worker
    with progress.busy(f"reading {source}"):
        corpus = read_source(source.resolve(), settings.units)  # so that keys do not depend on where one stands
        splits = assign_splits(corpus, settings.seed)
    clips = first_clips(cut_long(splits.clips, settings.limits.longest_s), settings.limit, settings.seed)
    clips.sort(key=lambda clip: clip.id)
    out.mkdir(parents=True, exist_ok=True)
    done = _work([Task(clip, _key(clip, settings)) for clip in clips], out, settings, progress)
    rows, rejected = _results(clips, done)
    _write(out / MANIFEST, rows)
    _write(out / REJECTED, rejected)
    reasons = [row["reason"] for row in rejected]
    if not rows:
        raise EdgeavError(_nothing_left(source, rejected, out / REJECTED))
    return {
        "kind": corpus.kind,
        "folder": str(out),
        "clips": len(rows),
        "rejected": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
        "notes": splits.notes,
    }


def _check_out(source: Path, out: Path) -> None:
    if out.resolve().is_relative_to(source.resolve()):  # the next run would read what this one wrote
        raise EdgeavError(f"{out}: lies in the source {source}; choose another folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / JOURNAL).is_file():
        raise EdgeavError(f"{out}: holds files that `edgeav data prepare` did not write; choose another --out")


def _work(tasks: Sequence[Task], out: Path, settings: Settings, progress: Progress) -> dict[str, dict[str, Any]]:
    """The journal's line of each clip, by id, once all are done."""
    done = _read_journal(out)
    keys = {task.clip.id: task.key for task in tasks}
    done = {id: line for id, line in done.items() if line["key"] == keys.get(id, line["key"])}
    todo = [task for task in tasks if task.clip.id not in done]
    if len(todo) < len(tasks):
        progress.say(f"{len(tasks) - len(todo)} of {len(tasks)} clips were prepared before")
    with (out / JOURNAL).open("a", encoding="utf-8") as journal:
        for line in progress.track(_in_parallel(todo, out, settings), "preparing", len(todo)):
            journal.write(json.dumps(line, ensure_ascii=False) + "\n")
            journal.flush()
            done[line["id"]] = line
    return done


def _read_journal(out: Path) -> dict[str, dict[str, Any]]:
    """The last line of each clip, if its files are still there; a line cut off by a kill counts for nothing."""
    path, lines = out / JOURNAL, {}
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        with path.open("a", encoding="utf-8") as journal:
            journal.write("\n")  # else the next line would be lost with it
    for row in text.splitlines():
        try:
            line = json.loads(row)
        except ValueError:
            continue
        lines[line["id"]] = line
    return {id: line for id, line in lines.items() if _files_are_there(line, out)}


def _files_are_there(line: dict[str, Any], out: Path) -> bool:
    row = line.get("row") or {}
    return all((out / row[name]).is_file() for name in ("video", "audio") if name in row)


def _in_parallel(tasks: Sequence[Task], out: Path, settings: Settings) -> Iterator[dict[str, Any]]:
    """Journal lines as they get done. EdgeavError when a process dies, which the system does where memory is short."""
    if not tasks:
        return
    # spawn: a forked child would inherit OpenCV's threads half alive
    context, workers = get_context("spawn"), min(settings.workers, len(tasks))
    pool = ProcessPoolExecutor(workers, context, _open_worker, (settings, out))
    try:
        for future in as_completed([pool.submit(_one, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise EdgeavError(
            "a worker process was ended from outside, perhaps for lack of memory. The same command goes on where this"
            " one stopped; try fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_worker: tuple[FaceDetector, Limits, Path]


def _open_worker(settings: Settings, out: Path) -> None:
    """Set up this process: its face detector; it ends with its parent, and leaves interrupts to it."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = open_face_detector(settings.face_model), settings.limits, out


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _one(task: Task) -> dict[str, Any]:
    """The journal's line: with a manifest row, or with a reason."""
    detector, limits, out = _worker
    line: dict[str, Any] = {"id": task.clip.id, "key": task.key}
    try:
        return line | {"row": prepare_clip(task.clip, detector, limits, out)}
    except Rejected as why:
        for old in (out / "video" / f"{task.clip.id}.mp4", out / "audio" / f"{task.clip.id}.flac"):
            old.unlink(missing_ok=True)
        return line | {"reason": why.reason, "detail": why.detail}


def _key(clip: RawClip, settings: Settings) -> str:
    """Of all that a prepared clip depends on. Splits are not in it: they are given anew each time."""
    files = [(str(path), *_stamp(path)) for path in (clip.video, clip.audio, settings.face_model) if path]
    made_from = [MAKES, str(replace(clip, split=None)), files, asdict(settings.limits)]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat() if path.is_file() else None
    return (stat.st_size, stat.st_mtime_ns) if stat else (0, 0)


def _results(
    clips: Sequence[RawClip], done: dict[str, dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the manifest and of the rejected, in the order of the clips."""
    lines = [(clip, done[clip.id]) for clip in clips]
    rows = [line["row"] | {"split": clip.split} for clip, line in lines if "row" in line]
    return rows, [
        {"id": clip.id, "split": clip.split, "reason": line["reason"], "detail": line["detail"]}
        for clip, line in lines
        if "row" not in line
    ]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with Whole(path) as part:
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _nothing_left(source: Path, rejected: Sequence[dict[str, Any]], path: Path) -> str:
    first = [f"{row['id']}: {row['reason']}: {row['detail']}" for row in rejected[:5]]
    return "\n".join([*first, f"{source}: none of {len(rejected)} clips can be used; all reasons are in {path}"])
