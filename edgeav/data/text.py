"""Text <-> tokens, by SentencePiece (Kudo & Richardson 2018, https://arxiv.org/abs/1808.06226), byte-pair merges.

At 12.5 output frames a second characters do not fit a CTC: "place white with z seven please" has 31 of them in about 25
frames. Pieces of a word, or whole words, do.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from edgeav.errors import EdgeavError

FILE = "tokenizer.model"
SPACE = "▁"


class Tokenizer:
    """SentencePiece ids 0..n-1; the CTC blank is n."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._pieces = sentencepiece.SentencePieceProcessor()
        self._pieces.LoadFromSerializedProto(model)

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(self._pieces.IdToPiece(i) for i in range(self._pieces.GetPieceSize()))

    def encode(self, text: str) -> list[int]:
        return self._pieces.EncodeAsIds(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._pieces.DecodeIds(list(ids))

    def save(self, folder: Path) -> None:
        (folder / FILE).write_bytes(self.model)


def load_tokenizer(folder: Path) -> Tokenizer:
    path = folder / FILE
    if not path.is_file():
        raise EdgeavError(f"{path}: no such file. A model that is to be trained or finetuned needs its tokenizer")
    return Tokenizer(path.read_bytes())


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-pair merges, at most `vocabulary` pieces: frequent words become one piece."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocabulary,
        model_type="bpe",
        character_coverage=1.0,
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue())
