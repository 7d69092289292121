"""Other projects' weights -> a model folder of ours, which every command then takes like our own.

One file per source; each says which keys it expects and derives the config. To add a source: a file with a
`read_…(path) -> Imported`, and one case in `_read`. Nothing of another project is run, and no pickle that holds code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeav.errors import EdgeavError
from edgeav.importers import auto_avsr, hama, nemo, parakeet
from edgeav.importers.imported import Imported, summary, write

SOURCES = """\
  Auto-AVSR checkpoint    FILE.pth, .pt, .ckpt or .safetensors
  NVIDIA NeMo archive     FILE.nemo (CTC, or hybrid with a CTC head)
  Hugging Face Parakeet   FOLDER with config.json and model.safetensors (ParakeetForCTC)
  hama's Conformer        hama (the installed package), or FILE.hama"""
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors")


def import_model(source: str | Path, out: Path, units: Path | None = None) -> dict[str, Any]:
    """Read `source` and write the model folder `out`; nothing is written when anything is wrong.

    `units`: the token list of an Auto-AVSR checkpoint, which does not hold its own. Returns what `edgeav models import`
    prints. EdgeavError names the first offending keys and what was expected.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise EdgeavError(f"{out}: exists already; choose another folder with --out")
    found = _read(source, units)
    write(found, out, Path(source).name)
    return summary(found, out)


def _read(source: str | Path, units: Path | None) -> Imported:
    path = Path(source).expanduser()
    if units is not None and path.suffix not in CHECKPOINTS:
        raise EdgeavError(f"--units {units}: only an Auto-AVSR checkpoint needs it; {source} brings its own tokens")
    if str(source) == "hama":  # a folder of that name is ./hama
        return hama.read_package()
    if not path.exists():
        raise EdgeavError(f"{source}: no such file or folder. What can be imported:\n{SOURCES}")
    if path.is_dir():
        return parakeet.read_folder(path)
    match path.suffix:
        case ".nemo":
            return nemo.read_archive(path)
        case ".hama":
            return hama.read_file(path)
        case ".pth" | ".pt" | ".ckpt" | ".safetensors":
            return auto_avsr.read_checkpoint(path, units)
    raise EdgeavError(f"{path}: not a known kind of file. What can be imported:\n{SOURCES}")
