"""Every corpus that users have is recognized by what is there and read; speakers of the test are not trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeav.data.pieces import cut_long
from edgeav.data.readers import RawClip, RawCorpus, read_source
from edgeav.data.readers.clip import split_named
from edgeav.data.readers.grid import sentence
from edgeav.data.splits import assign_splits, check_speakers, first_clips
from edgeav.errors import EdgeavError


def fill(folder: Path, files: dict[str, str]) -> Path:
    """Readers look at names and lists, never into media: their contents may be anything."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def grid(folder: Path) -> Path:
    files = {f"s{n}/video/mpg_6000/bbaf{n}n.mpg": "" for n in (1, 2, 3, 4, 5)}
    align = "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 at\n35500 41000 f\n41000 47250 three\n"
    return fill(folder, files | {"s3/align/bbaf3n.align": align + "47250 53000 now\n53000 74500 sil\n"})


def lrs2(folder: Path) -> Path:
    lists = {
        "train.txt": "11/00001\n",
        "val.txt": "12/00001\n",
        "test.txt": "13/00001 NF MV\n",
        "pretrain.txt": "14/9\n",
    }
    clips = {
        f"main/{show}/00001.{kind}": "Text:  GOOD DAY\nConf:  3\n" for show in (11, 12, 13) for kind in ("mp4", "txt")
    }
    long = "Text:  GOOD DAY\nConf:  4\n\nWORD START END ASDSCORE\nGOOD 0.10 0.40 5.1\nDAY 0.50 0.90 6.0\n"
    return fill(folder, lists | clips | {"pretrain/14/9.mp4": "", "pretrain/14/9.txt": long})


def lrs3(folder: Path) -> Path:
    pretrain = "Text:  SO {LG} MUCH\nConf:  3\nRef:  x\n\nWORD START END ASDSCORE\nSO 0.1 0.3 9\nMUCH 0.3 0.8 9\n"
    files = {"pretrain/talkA/00001.txt": pretrain, "trainval/talkB/50001.txt": "Text:  SO {LG} MUCH\nConf:  5\n"}
    files |= {"test/talkC/00001.txt": "Text:  IT'S GOOD\nConf:  4\n"}
    return fill(folder, files | {name.replace(".txt", ".mp4"): "" for name in files})


def auto_avsr(folder: Path) -> Path:
    rows = {
        "train": "lrs3,trainval/a/1.mp4,50,1 2 3",
        "val": "lrs3,trainval/b/1.mp4,50,1 3",
        "test": "lrs3,test/c/1.mp4,75,3",
    }
    files = {f"labels/lrs3_{split}_transcript_lengths_seg16s.csv": row + "\n" for split, row in rows.items()}
    media = {"lrs3/trainval/a/1.mp4": "", "lrs3/trainval/a/1.wav": "", "lrs3/test/c/1.mp4": ""}
    return fill(folder, files | media | {"units.txt": "▁GO 1\nOD 2\n▁DAY 3\n"})


def av_hubert(folder: Path) -> Path:
    rows = {"train": "trainval/a/1\tvideo/a.mp4\taudio/a.wav\t50\t32000", "test": "test/c/1\tvideo/c.mp4\tNone\t50\t0"}
    files = {f"{split}.tsv": f"media\n{row}\n" for split, row in rows.items()}
    return fill(folder, files | {"train.wrd": "good day\n", "test.wrd": "good\n"})


def nemo(folder: Path) -> Path:
    row = {"audio_filepath": "wav/talk.wav", "duration": 2.0, "text": "good day", "speaker": "anna"}
    train = [row, row | {"offset": 2.0}]
    lists = {"train_manifest.json": train, "test_manifest.json": [row | {"speaker": "ben"}]}
    return fill(folder, {name: "\n".join(map(json.dumps, rows)) for name, rows in lists.items()})


def plain_folder(folder: Path) -> Path:
    files = {
        f"{who}/{n}.{kind}": "good  day\n" for who in ("anna", "ben", "cleo") for n in (1, 2) for kind in ("mp4", "txt")
    }
    return fill(folder, files | {"anna/1.wav": ""})


def own(folder: Path) -> Path:
    rows = [
        {
            "id": n,
            "split": split,
            "speaker": who,
            "text": "go",
            "video": f"video/{who}_{n}.mp4",
            "align": [[0, 0.5, "sil"], [0.5, 0.9, "go"]],
        }
        for n, (split, who) in enumerate([("train", "s1"), ("dev_seen", "s1"), ("test_unseen", "s2")])
    ]
    return fill(folder, {"manifest.jsonl": "\n".join(map(json.dumps, rows))})


CORPORA = {
    "GRID": grid,
    "LRS2": lrs2,
    "LRS3": lrs3,
    "AV-HuBERT": av_hubert,
    "NeMo": nemo,
    "plain folder": plain_folder,
    "edgeav": own,
}


@pytest.mark.parametrize("kind", CORPORA)
def test_a_corpus_is_recognized_by_what_is_there_and_every_clip_gets_a_split(kind: str, tmp_path: Path) -> None:
    corpus = read_source(CORPORA[kind](tmp_path))
    assert corpus.kind == kind
    splits = {str(clip.split) for clip in assign_splits(corpus, seed=0).clips}
    assert any(split.startswith("test") for split in splits) and any(split.startswith("train") for split in splits)


def clips_of(folder: Path, units: Path | None = None) -> dict[str, RawClip]:
    return {clip.id: clip for clip in read_source(folder, units).clips}


def test_the_name_of_a_grid_clip_is_its_sentence_and_its_align_file_has_the_times(tmp_path: Path) -> None:
    clips = clips_of(grid(tmp_path))
    assert clips["s3_bbaf3n"].text == "bin blue at f three now"
    assert clips["s3_bbaf3n"].words[0] == ("bin", 0.95, 1.18)  # 23750 / 25000 s
    assert [word for word, _, _ in clips["s3_bbaf3n"].words] == clips["s3_bbaf3n"].text.split()
    assert clips["s1_bbaf1n"].words == ()
    assert {clip.speaker for clip in clips.values() if clip.split == "test_unseen"} == {"s1", "s2"}
    assert sentence("sgwzzs") == "set green with z zero soon"


def test_the_names_of_real_grid_clips_say_what_their_transcripts_say(grid: Path) -> None:
    rows = [json.loads(line) for line in (grid / "manifest.jsonl").read_text().splitlines()]
    assert [sentence(row["id"]) for row in rows] == [row["text"] for row in rows]


def test_lrs2_lists_say_the_split_and_pretrain_texts_the_times(tmp_path: Path) -> None:
    clips = clips_of(lrs2(tmp_path))
    assert {id: clip.split for id, clip in clips.items()} == {
        "main_11_00001": "train",
        "main_12_00001": "valid",
        "main_13_00001": "test",
        "pretrain_14_9": "train_pretrain",
    }
    assert clips["main_13_00001"].text == "good day" and clips["main_13_00001"].speaker == "13"
    assert clips["pretrain_14_9"].words == (("good", 0.1, 0.4), ("day", 0.5, 0.9))


def test_lrs3_notes_in_braces_are_not_words(tmp_path: Path) -> None:
    clips = clips_of(lrs3(tmp_path))
    assert clips["trainval_talkB_50001"].text == clips["pretrain_talkA_00001"].text == "so much"
    assert clips["test_talkC_00001"].text == "it's good" and clips["test_talkC_00001"].split == "test"


def test_auto_avsr_ids_become_text_with_the_units_that_made_them(tmp_path: Path) -> None:
    clips = clips_of(auto_avsr(tmp_path), tmp_path / "units.txt")
    assert {clip.split: clip.text for clip in clips.values()} == {"train": "good day", "valid": "go day", "test": "day"}
    train = clips["lrs3_trainval_a_1"]
    assert train.video == tmp_path / "lrs3/trainval/a/1.mp4" and train.audio == tmp_path / "lrs3/trainval/a/1.wav"
    assert train.duration_s == 2.0 and train.speaker == "a"
    assert clips["lrs3_test_c_1"].audio is None


def test_auto_avsr_without_units_takes_a_fifth_column_or_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EdgeavError, match=r"(?s)only token ids, and no --units.*fifth column"):
        read_source(auto_avsr(tmp_path))
    for path in (tmp_path / "labels").iterdir():
        path.write_text(path.read_text().strip() + ',"good, day"\n')
    assert {clip.text for clip in clips_of(tmp_path).values()} == {"good, day"}


def test_av_hubert_pairs_each_row_with_its_sentence(tmp_path: Path) -> None:
    clips = clips_of(av_hubert(tmp_path))
    assert clips["trainval_a_1"].text == "good day" and clips["trainval_a_1"].audio == tmp_path / "media/audio/a.wav"
    assert clips["test_c_1"].audio is None and clips["test_c_1"].split == "test"


def test_nemo_segments_of_one_file_are_clips_of_their_own(tmp_path: Path) -> None:
    clips = sorted(clips_of(nemo(tmp_path)).values(), key=lambda clip: (str(clip.split), clip.start_s))
    assert [(clip.split, clip.start_s, clip.duration_s) for clip in clips] == [
        ("test", 0.0, 2.0),
        ("train", 0.0, 2.0),
        ("train", 2.0, 2.0),
    ]
    assert clips[0].audio == tmp_path / "wav/talk.wav" and clips[0].video is None


def test_a_folder_of_clips_takes_texts_speakers_and_sound_from_beside_them(tmp_path: Path) -> None:
    clips = clips_of(plain_folder(tmp_path))
    assert clips["anna_1"].text == "good day" and clips["anna_1"].speaker == "anna"
    assert clips["anna_1"].audio == tmp_path / "anna/1.wav" and clips["anna_2"].audio is None


def test_a_folder_with_train_and_test_in_it_is_divided_so(tmp_path: Path) -> None:
    files = {f"{name}.{kind}": "go" for name in ("train/anna/1", "train/2", "test/ben/1") for kind in ("mp4", "txt")}
    clips = clips_of(fill(tmp_path, files))
    assert [(clip.split, clip.speaker) for _, clip in sorted(clips.items())] == [
        ("test", "ben"),
        ("train", "unknown"),
        ("train", "anna"),
    ]


def test_names_in_any_script_stay_apart(tmp_path: Path) -> None:
    assert set(clips_of(fill(tmp_path, {f"анна/{n}.{kind}": "да" for n in "öü" for kind in ("mp4", "txt")}))) == {
        "анна_ö",
        "анна_ü",
    }


def test_our_own_manifest_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    clips = clips_of(own(tmp_path))
    assert clips["s1_1"].split == "dev_seen" and clips["s2_2"].words == (("go", 0.5, 0.9),)


def test_a_folder_that_is_no_corpus_is_told_what_was_looked_for(tmp_path: Path) -> None:
    fill(tmp_path, {"a.mp4": "", "b.mp4": ""})
    with pytest.raises(EdgeavError, match=r"(?s)2 media files.*LRS2.*LRS3.*AV-HuBERT.*Auto-AVSR.*NeMo.*GRID.*\.txt"):
        read_source(tmp_path)
    with pytest.raises(EdgeavError, match="no such file or folder"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(EdgeavError, match=r"no list of clips\. Known: \.csv"):
        read_source(tmp_path / "a.mp4")


def test_units_for_a_corpus_with_texts_of_its_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeavError, match="only Auto-AVSR lists need it"):
        read_source(nemo(tmp_path), tmp_path / "units.txt")


def spoil_csv(folder: Path) -> None:
    lists = sorted((auto_avsr(folder) / "labels").iterdir())
    lists[0].write_text("lrs3,a.mp4,fifty,1\nlrs3,a.mp4\n")


def spoil_tsv(folder: Path) -> None:
    (av_hubert(folder) / "train.tsv").write_text("media\na\tb\tc\nx\tNone\tNone\t0\t0\n")


def spoil_nemo(folder: Path) -> None:
    good = {"audio_filepath": "a.wav", "text": "go", "duration": 1}
    lines = [json.dumps(good | {"duration": "long"}), "{broken", json.dumps({"audio_filepath": "a.wav"})]
    (nemo(folder) / "train_manifest.json").write_text("\n".join([json.dumps(good), *lines]))


def spoil_lrs3(folder: Path) -> None:
    fill(
        lrs3(folder),
        {"trainval/talkB/50001.txt": "SO MUCH", "pretrain/talkA/00001.txt": "Text:  A\n\nWORD START END\nA 0.1\n"},
    )


def spoil_align(folder: Path) -> None:
    fill(grid(folder), {"s3/align/bbaf3n.align": "0 10 sil\n10 bin\n", "s4/align/bbaf4n.align": "a b c\n"})


def spoil_own(folder: Path) -> None:
    lines = [{"text": "go"}, {"text": "go", "speaker": "s", "split": "test"}, {"video": "a.mp4", "text": 3}]
    fill(folder, {"manifest.jsonl": "\n".join(map(json.dumps, [{"video": "x"}, *lines]))})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_csv, r"\.csv:1: .*\.csv:2: .*2 columns"),
        (spoil_tsv, r"train\.tsv:2: 3 columns, expected 5.*train\.tsv:3: names neither"),
        (spoil_nemo, r"json:3: no JSON.*json:4: text: missing.*json:2: .*long"),
        (spoil_lrs3, r"talkA/00001\.txt:4: .*not WORD START END.*50001\.txt: does not begin with 'Text:'"),
        (spoil_align, r"bbaf3n\.align:2: '10 bin'.*bbaf4n\.align:1: 'a b c'"),
        (spoil_own, r"manifest\.jsonl:2: speaker, split: missing.*:4: text, speaker, split.*:3: names neither"),
    ],
)
def test_every_mistake_of_a_list_is_named_with_its_line_at_once(
    spoil: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    spoil(tmp_path)
    with pytest.raises(EdgeavError, match=f"(?s){said}"):
        read_source(tmp_path, tmp_path / "units.txt" if spoil is spoil_csv else None)


def test_two_clips_of_one_id_are_refused_with_both_paths(tmp_path: Path) -> None:
    fill(grid(tmp_path), {"s3/video/mpg_vcd/bbaf3n.mpg": ""})
    with pytest.raises(EdgeavError, match=r"(?s)mpg_6000/bbaf3n\.mpg.*mpg_vcd/bbaf3n\.mpg.*leave one copy"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("lrs3_train_transcript", "train"),
        ("trainval", "train"),
        ("dev-clean", "valid"),
        ("test", "test"),
        ("latest", None),
    ],
)
def test_the_name_of_a_list_says_its_split(name: str, split: str | None) -> None:
    assert split_named(name) == split


def many(speakers: int, each: int = 5) -> RawCorpus:
    clips = [RawClip(f"{n}_{i}", f"s{n}", "go") for n in range(speakers) for i in range(each)]
    return RawCorpus("plain folder", clips, own_splits=False)


def speakers_by_split(clips: list[RawClip]) -> dict[str | None, set[str]]:
    splits: dict[str | None, set[str]] = {}
    for clip in clips:
        splits.setdefault(clip.split, set()).add(clip.speaker)
    return splits


@pytest.mark.parametrize("speakers", [3, 10, 40])
def test_held_out_speakers_are_in_no_other_split(speakers: int) -> None:
    splits = assign_splits(many(speakers), seed=1)
    by_split = speakers_by_split(splits.clips)
    assert set(by_split) == {"train", "valid", "test"}
    assert sum(map(len, by_split.values())) == speakers
    check_speakers(splits.clips, set())


def test_the_same_seed_holds_out_the_same_speakers_and_another_others() -> None:
    drawn = [speakers_by_split(assign_splits(many(40), seed).clips)["test"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_whoever_has_most_clips_is_trained_on() -> None:
    corpus = many(5)
    busy = replace(corpus, clips=[*corpus.clips, *(RawClip(f"0_{i}", "s0", "go") for i in range(10, 60))])
    assert all("s0" in speakers_by_split(assign_splits(busy, seed).clips)["train"] for seed in range(20))


def test_with_one_speaker_the_test_says_by_its_name_that_he_is_seen() -> None:
    splits = assign_splits(many(1, each=20), seed=0)
    assert set(speakers_by_split(splits.clips)) == {"train", "valid_seen", "test_seen"}
    assert any("test_seen: 2 clips held out of training, but no speaker could be spared" in n for n in splits.notes)


def test_unknown_speakers_are_never_claimed_to_be_unseen() -> None:
    clips = [replace(clip, speaker="unknown") if n % 2 else clip for n, clip in enumerate(many(6).clips)]
    splits = assign_splits(RawCorpus("NeMo", clips, own_splits=False), seed=0)
    assert set(speakers_by_split(splits.clips)) == {"train", "valid_seen", "test_seen"}
    assert any("speakers are unknown" in note for note in splits.notes)


def test_a_test_speaker_in_training_is_an_error_unless_the_corpus_says_so_itself() -> None:
    clips = [RawClip("1", "anna", "go", split="train"), RawClip("2", "anna", "go", split="test")]
    clips.append(RawClip("3", "ben", "go", split="valid"))
    with pytest.raises(EdgeavError, match="speaker anna of test is also in train"):
        assign_splits(RawCorpus("mine", clips, own_splits=False), seed=0)
    notes = assign_splits(RawCorpus("LRS2", clips, own_splits=True), seed=0).notes
    assert notes == ["test: 1 of its speakers are in other splits too, by the corpus's own division"]


def test_a_missing_validation_split_is_taken_from_training_speakers_not_in_the_test() -> None:
    clips = [RawClip(f"{n}", f"t{n}", "go", split="train") for n in range(20)] + [RawClip("x", "y", "go", split="test")]
    by_split = speakers_by_split(assign_splits(RawCorpus("LRS3", clips, own_splits=True), seed=0).clips)
    assert by_split["test"] == {"y"} and len(by_split["valid"]) == 1 and not by_split["valid"] & by_split["train"]


def test_a_larger_limit_only_adds_clips_and_every_split_has_its_turn() -> None:
    clips = assign_splits(many(20), seed=0).clips
    few, more = first_clips(clips, 6, seed=0), first_clips(clips, 30, seed=0)
    assert few == more[:6] and len(more) == 30
    assert {clip.split for clip in few} == {"train", "valid", "test"}
    assert len(first_clips(clips, None, seed=0)) == 100


def test_a_long_clip_is_cut_between_words_and_no_word_is_lost() -> None:
    words = tuple((f"w{n}", n * 0.5 + 0.1, n * 0.5 + (0.62 if n % 7 == 0 else 0.4)) for n in range(100))
    pieces = cut_long([RawClip("talk", "a", "…", Path("talk.mp4"), words=words)], longest_s=8.0)
    assert [word for piece in pieces for word in piece.words] == list(words)
    assert " ".join(piece.text for piece in pieces) == " ".join(word for word, _, _ in words)
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        assert piece.duration_s is not None and piece.duration_s <= 8.0
        end_s = piece.start_s + piece.duration_s
        assert piece.start_s <= piece.words[0][1] + 0.02 and piece.words[-1][2] <= end_s + 0.02
        assert following is None or end_s <= following.start_s + 1e-9
    assert len({piece.id for piece in pieces}) == len(pieces) == 7


def test_a_short_clip_and_one_without_word_times_are_not_cut() -> None:
    clips = [RawClip("a", "a", "go", words=(("go", 0.1, 0.5),)), RawClip("b", "a", "go", duration_s=90.0)]
    assert cut_long(clips, longest_s=8.0) == clips
