"""From clips as they are to a folder that training reads; whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import soundfile
from media_files import shades, tone, write_media
from numpy.typing import NDArray

from edgeav.data.corpus import Media, open_corpus
from edgeav.data.facts import corpus_facts
from edgeav.data.one_clip import Limits, Rejected, read_clip, write_mouth
from edgeav.data.prepare import Settings, prepare
from edgeav.data.readers import RawClip
from edgeav.errors import EdgeavError
from edgeav.progress import Progress
from edgeav.runtime.face import Face, Gray

Run = Callable[..., subprocess.CompletedProcess[str]]


class MiddleFace:
    """A face in the middle of every picture that is not black."""

    say = "a script"

    def find(self, picture: Gray) -> list[Face]:
        return [Face(picture.shape[1] / 2, picture.shape[0] / 2, 20)] if picture.any() else []


def mouth(frames: int, height: int = 96) -> list[NDArray[np.uint8]]:
    """Pictures that are mouth crops already, each of its own gray."""
    return shades(frames, height, 96)


def corpus(folder: Path, speakers: int = 3, each: int = 2, frames: int = 25) -> Path:
    """A plain folder of clips, 96x96 and a second each; the sound says which is which by its pitch."""
    for who in range(speakers):
        (folder / f"s{who}").mkdir(parents=True)
        for n in range(each):
            sound = tone(frames / 25, 44_100, 300 + 100 * (who * each + n))
            write_media(folder / f"s{who}/{n}.mkv", sound, 44_100, mouth(frames))
            (folder / f"s{who}/{n}.txt").write_text(f"word{n} said")
    return folder


def run(source: Path, out: Path, **settings: Any) -> dict[str, Any]:
    return prepare(source, out, Settings(**settings), Progress())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    """Every file but the journal, whose order is that in which clips got done."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != "prepared.jsonl"
    }


def test_what_is_prepared_is_a_corpus_with_the_same_sound_and_lips(tmp_path: Path) -> None:
    result = run(corpus(tmp_path / "raw"), tmp_path / "out", workers=2)
    assert result["clips"] == 6 and result["rejected"] == {} and result["kind"] == "plain folder"
    opened = open_corpus(str(tmp_path / "out"))
    assert [split.speakers for split in opened.tests] == ["unseen"]
    everything = [*opened.train, *opened.valid, *opened.tests[0].utterances]
    assert {u.id for u in everything} == {f"s{who}_{n}" for who in range(3) for n in range(2)}
    for utterance in everything:
        who, n = int(utterance.id[1]), int(utterance.id[3])
        media = utterance.media()
        assert utterance.text == f"word{n} said" and utterance.speaker == f"s{who}"
        assert media.waveform is not None and media.mouth is not None
        wanted = tone(1, 16_000, 300 + 100 * (who * 2 + n))
        np.testing.assert_allclose(media.waveform[200:-200], wanted[200:-200], atol=5e-3)
        np.testing.assert_allclose(media.mouth, np.stack(mouth(25)), atol=3)


def test_a_second_time_nothing_is_done_again(tmp_path: Path) -> None:
    source, out = corpus(tmp_path / "raw"), tmp_path / "out"
    run(source, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    run(source, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")} == before


def test_what_has_changed_is_done_again_and_what_was_lost_too(tmp_path: Path) -> None:
    source, out = corpus(tmp_path / "raw"), tmp_path / "out"
    run(source, out)
    (source / "s0/0.txt").write_text("another text")
    (out / "video/s1_1.mp4").unlink()
    write_media(source / "s2/0.mkv", tone(2), pictures=mouth(50))
    kept = (out / "video/s0_1.mp4").stat().st_mtime_ns
    run(source, out)
    rows = {row["id"]: row for row in lines(out / "manifest.jsonl")}
    assert rows["s0_0"]["text"] == "another text" and rows["s2_0"]["frames"] == 50
    assert (out / "video/s1_1.mp4").is_file()
    assert (out / "video/s0_1.mp4").stat().st_mtime_ns == kept


def test_a_larger_limit_goes_on_and_an_unlimited_run_is_the_same_as_one_at_once(tmp_path: Path) -> None:
    source = corpus(tmp_path / "raw")
    assert run(source, tmp_path / "out", limit=3)["clips"] == 3
    run(source, tmp_path / "out")
    run(source, tmp_path / "at-once")
    assert contents(tmp_path / "out") == contents(tmp_path / "at-once")


SLOW = """
import sys, time
from pathlib import Path
from edgeav.data import prepare as job
from edgeav.progress import Progress
class Slow(Progress):
    def track(self, items, text, total=None):
        for item in items:
            yield item
            time.sleep(0.3)
if __name__ == "__main__":
    job.prepare(Path(sys.argv[1]), Path(sys.argv[2]), job.Settings(), Slow())
"""


def test_a_run_killed_in_the_middle_goes_on_to_the_same_result_and_leaves_no_process(tmp_path: Path) -> None:
    source, out = corpus(tmp_path / "raw", each=4), tmp_path / "out"
    (tmp_path / "slow.py").write_text(SLOW)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, tmp_path / "slow.py", source, out], env=environment)
    journal = out / "prepared.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.is_file() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    children = _children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= journal.read_text().count("\n") < 12 and not (out / "manifest.jsonl").exists()
    assert children
    while any(_alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    with journal.open("a") as broken:  # as a kill in the middle of writing leaves it
        broken.write('{"id": "s0_')
    (out / "video").mkdir(exist_ok=True)
    run(source, out)
    run(source, tmp_path / "at-once")
    assert contents(out) == contents(tmp_path / "at-once")


def _children(pid: int) -> list[int]:
    """Of this process; /proc is there on Linux, for which this is."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def spoiled(folder: Path) -> Path:
    """Good clips of three speakers, and beside them one clip of each kind that cannot be used."""
    corpus(folder)
    bad = folder / "s0"
    for name in ("silent_text", "black", "short", "long", "broken", "apart"):
        (bad / f"{name}.txt").write_text("go on")
    (bad / "silent_text.txt").write_text("  \n")
    write_media(bad / "silent_text.mkv", tone(1), pictures=mouth(25))
    write_media(bad / "no_text.mkv", tone(1), pictures=mouth(25))
    write_media(bad / "black.mkv", tone(2), pictures=[np.zeros((144, 192), np.uint8)] * 50)
    write_media(bad / "short.mkv", tone(0.2), pictures=mouth(5))
    write_media(bad / "long.mkv", tone(25), pictures=mouth(1) * 625)
    (bad / "broken.mp4").write_bytes(b"no video")
    write_media(bad / "apart.mkv", tone(3), pictures=mouth(25))
    return folder


def test_clips_that_cannot_be_used_are_listed_with_the_reason_and_do_not_stop_the_others(tmp_path: Path) -> None:
    result = run(spoiled(tmp_path / "raw"), tmp_path / "out")
    reasons = {row["id"]: row["reason"] for row in lines(tmp_path / "out/rejected.jsonl")}
    assert reasons == {
        "s0_apart": "tracks apart",
        "s0_black": "no face",
        "s0_broken": "undecodable",
        "s0_long": "too long",
        "s0_no_text": "no text",
        "s0_short": "too short",
        "s0_silent_text": "no text",
    }
    assert result["clips"] == 6 and result["rejected"]["no text"] == 2
    assert not [path for path in (tmp_path / "out/video").iterdir() if path.stem in reasons]
    assert corpus_facts(tmp_path / "out")["rejected"] == result["rejected"]


def test_files_that_a_list_names_but_are_not_there_are_rejected_all_of_them(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(2), 16_000)
    rows = [{"audio_filepath": name, "text": "go", "duration": 1.0} for name in ("a.wav", "a.wav", "b.wav", "c.wav")]
    (tmp_path / "list.json").write_text("\n".join(map(json.dumps, rows)))
    result = run(tmp_path / "list.json", tmp_path / "out")
    assert result["clips"] == 2 and result["rejected"] == {"missing file": 2}
    assert "b.wav: no such file" in (tmp_path / "out/rejected.jsonl").read_text()


def test_when_no_clip_is_left_the_first_reasons_are_the_error(tmp_path: Path) -> None:
    rows = [{"audio_filepath": f"{n}.wav", "text": "go", "duration": 1.0} for n in range(9)]
    (tmp_path / "list.json").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(EdgeavError, match=r"(?s)0\.wav: no such file.*none of 9 clips can be used.*rejected\.jsonl"):
        run(tmp_path / "list.json", tmp_path / "out")


def test_a_stretch_of_a_file_is_cut_from_sound_and_pictures_at_one_place(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(32_000, np.float32), tone(2)])  # a tone begins at 2 s
    pictures = [np.full((96, 96), 40 if n < 50 else 200, np.uint8) for n in range(100)]  # and it gets light
    path = write_media(tmp_path / "a.mkv", sound, pictures=pictures)
    media = clip_media(RawClip("a", "s", "go", path, start_s=1.51, duration_s=1.0, words=(("go", 2.0, 2.4),)))
    assert media.mouth is not None and media.waveform is not None
    assert len(media.mouth) == 25 and len(media.waveform) == 16_000
    first = 1.52  # the picture nearest to 1.51 s
    light, loud = np.argmax(media.mouth.mean(axis=(1, 2)) > 120) / 25, np.argmax(abs(media.waveform) > 1e-3) / 16_000
    assert light == pytest.approx(2 - first, abs=0.001) and loud == pytest.approx(2 - first, abs=0.001)
    assert media.words == (("go", pytest.approx(0.48), pytest.approx(0.88)),)


def clip_media(clip: RawClip) -> Media:
    return read_clip(clip, MiddleFace(), Limits())


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ({"words": (("go", 0.5, 9.0),)}, "times outside: 'go' at 0.50 to 9.00 s of 1.00 s"),
        ({"words": (("go", 0.5, 0.4),)}, "times outside: 'go' at 0.50 to 0.40"),
        ({"start_s": 5.0, "duration_s": 1.0}, "times outside: .*no picture at 5.00 s"),
        ({"duration_s": 3.0}, "times outside: 3.00 s by the list, but only 1.00 s are there"),
        ({"duration_s": 30.0}, "too long: 30.00 s"),
    ],
)
def test_times_that_lie_outside_the_clip_are_a_reason(times: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", tone(1), pictures=mouth(25))
    with pytest.raises(Rejected, match=said):
        clip_media(RawClip("a", "s", "go", path, **times))


def test_sound_beside_a_video_is_taken_instead_of_its_own(tmp_path: Path) -> None:
    video = write_media(tmp_path / "a.mkv", tone(1, hz=300), pictures=mouth(25))
    soundfile.write(tmp_path / "b.wav", tone(1, hz=700), 16_000, "FLOAT")
    media = clip_media(RawClip("a", "s", "go", video, tmp_path / "b.wav"))
    assert media.waveform is not None
    np.testing.assert_allclose(media.waveform, tone(1, hz=700), atol=1e-6)


@pytest.mark.parametrize("kept", ["sound", "lips"])
def test_a_clip_of_one_modality_stays_one(kept: str, tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"raw/s{n}").mkdir(parents=True)
        (tmp_path / f"raw/s{n}/a.txt").write_text("go")
        sound, pictures = (tone(1), None) if kept == "sound" else (None, mouth(25))
        write_media(tmp_path / f"raw/s{n}/a.{'wav' if kept == 'sound' else 'mkv'}", sound, pictures=pictures)
    run(tmp_path / "raw", tmp_path / "out")
    media = open_corpus(str(tmp_path / "out")).train[0].media()
    assert (media.waveform is None, media.mouth is None) == (kept == "lips", kept == "sound")
    assert {row["tracks"] for row in corpus_facts(tmp_path / "out")["splits"]} == {"A" if kept == "sound" else "V"}


def test_written_mouths_lose_less_than_one_gray_level_and_are_no_brighter(tmp_path: Path, grid: Path) -> None:
    real = next((grid / "video").glob("s1_*.mp4"))
    before = _pictures(real)
    write_mouth(tmp_path / "a.mp4", before)
    difference = _pictures(tmp_path / "a.mp4").astype(int) - before
    assert np.abs(difference).mean() < 1.0 and abs(difference.mean()) < 0.1


def _pictures(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(np.uint8)


def test_a_prepared_corpus_prepared_again_is_the_same_corpus(tmp_path: Path) -> None:
    run(corpus(tmp_path / "raw"), tmp_path / "once")
    run(tmp_path / "once", tmp_path / "twice")
    once, twice = (lines(tmp_path / name / "manifest.jsonl") for name in ("once", "twice"))
    assert once == twice


def test_real_grid_clips_come_out_as_the_corpus_that_was_made_of_them(tmp_path: Path, grid: Path) -> None:
    """Its mouths were cut by YuNet too, by other code; its sound was resampled by another program."""
    model = grid.parent / "yunet" / "yunet_n_dynamic.onnx"
    result = run(grid / "raw", tmp_path / "out", face_model=model)
    assert result["kind"] == "GRID" and result["clips"] == 11 and result["rejected"] == {}
    theirs = {Path(row["video"]).stem: row for row in lines(grid / "manifest.jsonl")}
    for row in lines(tmp_path / "out/manifest.jsonl"):
        their = theirs[row["id"]] if row["id"] in theirs else theirs[row["id"].replace("woman-A", "rz")]
        assert row["text"] == their["text"] and row["frames"] == their["frames"]
        ours, other = _pictures(tmp_path / "out" / row["video"]), _pictures(grid / their["video"])
        shift, _ = cv2.phaseCorrelate(ours.mean(axis=0), other.mean(axis=0))
        assert np.linalg.norm(shift) < 4, row["id"]  # pixels, of 96
        assert np.corrcoef(ours.ravel(), other.ravel())[0, 1] > 0.8, row["id"]
        assert _best_lag(ours, other) == 0, row["id"]
        sound, their_sound = (soundfile.read(p)[0] for p in (tmp_path / "out" / row["audio"], grid / their["audio"]))
        assert len(sound) == len(their_sound)
        assert np.corrcoef(sound, their_sound)[0, 1] > 0.999, row["id"]


def _best_lag(ours: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """By how many pictures ours must be moved for its movements to be the other's."""
    moves = [np.abs(np.diff(pictures.astype(float), axis=0)).mean(axis=(1, 2)) for pictures in (ours, other)]
    middle = moves[1][3:-3]
    return max(range(-3, 4), key=lambda lag: np.corrcoef(moves[0][3 + lag :][: len(middle)], middle)[0, 1])


def test_the_command_prints_a_summary_and_json_and_show_says_the_same(edgeav: Run, tmp_path: Path) -> None:
    corpus(tmp_path / "raw")
    prepared = edgeav("data", "prepare", "raw", "--out", "out", "--json")
    assert prepared.returncode == 0, prepared.stderr
    facts = json.loads(prepared.stdout)
    assert facts["clips"] == 6 and facts["speakers"] == 3 and facts["hours"] == pytest.approx(6 / 3600, abs=1e-4)
    assert {row["split"]: row["known"] for row in facts["splits"]}["test"] == "unseen"
    assert "preparing: 6 in" in prepared.stderr
    shown = edgeav("data", "show", "out", "--json")
    assert json.loads(shown.stdout).items() <= facts.items()
    table = edgeav("data", "show", "out").stdout
    assert "unseen" in table and "test: word0 said" in table and "6 clips" in table


@pytest.mark.parametrize("name", ["prepare", "show"])
def test_the_help_of_each_command_opens_with_an_example_of_it(edgeav: Run, name: str) -> None:
    shown = [line.strip() for line in edgeav("data", name, "--help").stdout.splitlines() if line.strip()]
    assert shown[1].startswith(f"Example: edgeav data {name} ") and any("--json" in line for line in shown)


def test_mistakes_of_the_command_are_explained_and_write_nothing(edgeav: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.doc").write_text("mine")
    corpus(tmp_path / "raw", each=1)
    for words, said in (
        (["prepare", "nowhere", "--out", "out"], "nowhere: no such file or folder"),
        (["prepare", "mine", "--out", "out"], "not a known corpus"),
        (["prepare", "raw", "--out", "raw"], "raw: lies in the source raw"),
        (["prepare", "raw", "--out", "raw/out"], "raw/out: lies in the source raw"),
        (["prepare", "raw", "--out", "mine"], "did not write"),
        (["prepare", "raw", "--out", "out", "--face-model", "x.onnx"], "x.onnx: no such file"),
        (["prepare", "raw", "--out", "out", "--face-model", "mine/notes.doc"], "cannot be loaded"),
        (["show", "mine"], "edgeav data prepare mine"),
    ):
        result = edgeav("data", *words)
        assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr, result
        assert result.stdout == "" and not (tmp_path / "out").exists()


def test_show_names_files_that_are_missing(tmp_path: Path) -> None:
    run(corpus(tmp_path / "raw"), tmp_path / "out")
    (tmp_path / "out/audio/s0_0.flac").unlink()
    with pytest.raises(EdgeavError, match=r"audio/s0_0\.flac: no such file"):
        corpus_facts(tmp_path / "out")
