"""Corpora as their publishers leave them -> lists of raw clips. Which corpus it is shows from what is there."""

from __future__ import annotations

from pathlib import Path

from edgeav.data.readers import auto_avsr, av_hubert, folder, grid, json_lines, lrs
from edgeav.data.readers.clip import RawClip, RawCorpus, media_below
from edgeav.errors import EdgeavError

__all__ = ["RawClip", "RawCorpus", "read_source"]

LOOKED_FOR = """\
  manifest.jsonl                                   a corpus prepared before
  main/ or pretrain/, and train.txt, val.txt, …    LRS2
  pretrain/, trainval/, test/ with TALK/CLIP.mp4   LRS3
  NAME.tsv with NAME.wrd                           AV-HuBERT
  NAME.csv, or labels/NAME.csv                     Auto-AVSR
  NAME.json or .jsonl with "audio_filepath"        NeMo
  s1/…/bbaf2n.mpg: names are sentences             GRID
  clips, each with a .txt of the same name         a plain folder"""


def read_source(source: Path, units: Path | None = None) -> RawCorpus:
    """The clips of a folder, or of one list file. `units`: the token list of an Auto-AVSR list.

    EdgeavError says what was looked for, or every mistake of the format.
    """
    if not source.exists():
        raise EdgeavError(f"{source}: no such file or folder")
    found = _read_folder(source, units) if source.is_dir() else _read_list(source, units)
    if units and found.kind != "Auto-AVSR":
        raise EdgeavError(f"--units {units}: only Auto-AVSR lists need it; {source} is {found.kind}")
    return found


def _read_list(path: Path, units: Path | None) -> RawCorpus:
    match path.suffix:
        case ".csv":
            return auto_avsr.read_auto_avsr([path], units)
        case ".tsv":
            return av_hubert.read_av_hubert([path])
        case ".json" | ".jsonl" if (kind := json_lines.kind_of(path)) is not None:
            return json_lines.read_ours(path) if kind == "edgeav" else json_lines.read_nemo([path])
    raise EdgeavError(f"{path}: no list of clips. Known: .csv (Auto-AVSR), .tsv (AV-HuBERT), .json and .jsonl (NeMo)")


def _read_folder(source: Path, units: Path | None) -> RawCorpus:
    """From the most telling sign to the least: a corpus that has lists is read by them."""
    own = source / "manifest.jsonl"
    if own.is_file():
        return _read_list(own, units)
    if lrs.is_lrs2(source):
        return lrs.read_lrs2(source)
    if lrs.is_lrs3(source):
        return lrs.read_lrs3(source)
    if lists := av_hubert.lists_in(source):
        return av_hubert.read_av_hubert(lists)
    if lists := auto_avsr.lists_in(source):
        return auto_avsr.read_auto_avsr(lists, units)
    if lists := json_lines.manifests_in(source):
        return json_lines.read_nemo(lists)
    media = media_below(source)
    if grid.is_grid(media):
        return grid.read_grid(source)
    if folder.has_texts(media):
        return folder.read_plain_folder(source)
    raise EdgeavError(f"{source}: not a known corpus ({len(media)} media files). Looked for:\n{LOOKED_FOR}")
