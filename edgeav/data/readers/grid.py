"""GRID as it is published: a folder per speaker, clips whose name is the sentence, and word times in .align files.

Cooke, Barker, Cunningham & Shao 2006, "An audio-visual corpus for speech perception and automatic speech recognition",
https://doi.org/10.1121/1.2229005. Test speakers as in LipNet (Assael et al. 2016, https://arxiv.org/abs/1611.01599).
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeav.data.corpus import Word
from edgeav.data.readers.clip import AUDIO, VIDEO, Problems, RawClip, RawCorpus, corpus_of, media_below, numbered_lines

SENTENCE = re.compile(r"(?:(?P<speaker>.+)_)?(?P<code>[blps][bgrw][abiw][a-vx-z][0-9z][anps])", re.IGNORECASE)
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    dict(zip("z0123456789", ["zero", *DIGITS], strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
UNITS_PER_SECOND = 25 * 1000  # of .align: a thousand to the frame
TEST_SPEAKERS = ("s1", "s2", "s20", "s22")
SILENCE = ("sil", "sp")


def is_grid(media: list[Path]) -> bool:
    return bool(media) and all(SENTENCE.fullmatch(path.stem) for path in media)


def read_grid(folder: Path) -> RawCorpus:
    """`sN/**/bbaf2n.mpg`, or `sN_bbaf2n.mpg` in one folder; .align and .wav files of the same name anywhere below."""
    times, problems = {}, Problems("An .align file holds lines of START END WORD, 1000 units a frame")
    for path in sorted(folder.rglob("*.align")):
        times[_name(path, folder)] = _read_align(path, problems)
    problems.stop()
    sounds = {_name(path, folder): path for path in media_below(folder, AUDIO) if SENTENCE.fullmatch(path.stem)}
    videos = media_below(folder, VIDEO)
    known = {_name(path, folder)[0] for path in videos}
    protocol = bool(known - set(TEST_SPEAKERS))  # the test speakers alone are no corpus to hold them out from
    clips = []
    for path in videos:
        speaker, code = name = _name(path, folder)
        split = "test_unseen" if protocol and speaker in TEST_SPEAKERS else None
        clips.append(
            RawClip(
                f"{speaker}_{code}",
                speaker,
                sentence(code),
                path,
                sounds.get(name),
                words=times.get(name, ()),
                split=split,
            )
        )
    return corpus_of("GRID", clips, own_splits=False)


def sentence(code: str) -> str:
    """ "bbaf2n" -> "bin blue at f two now"."""
    return " ".join(words[letter] for words, letter in zip(WORDS, code.lower(), strict=True))


def _name(path: Path, folder: Path) -> tuple[str, str]:
    """(speaker, six letters) of a clip or of its .align; the speaker stands before them or is a folder s1…s34."""
    match = SENTENCE.fullmatch(path.stem)
    code = match["code"].lower() if match else path.stem
    if match and match["speaker"]:
        return match["speaker"], code
    above = path.relative_to(folder).parts[:-1]
    return next((part for part in above if re.fullmatch(r"s\d+", part)), above[0] if above else folder.name), code


def _read_align(path: Path, problems: Problems) -> tuple[Word, ...]:
    words = []
    for where, line in numbered_lines(path):
        match line.split():
            case [start, end, word] if start.isdigit() and end.isdigit():
                words.append((word, int(start) / UNITS_PER_SECOND, int(end) / UNITS_PER_SECOND))
            case _:
                problems.add(where, f"{line!r}: not START END WORD")
    return tuple(word for word in words if word[0] not in SILENCE)
