"""Where models are found by name, and what `edgeav models` lists. Imports no torch."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgeav.errors import EdgeavError

SHIPPED = Path(__file__).parent / "models" / "weights"


def find_model(name: str) -> Path:
    """The folder of a shipped model, or of the checkpoint at this path."""
    for folder in (SHIPPED / name, Path(name)):
        if (folder / "model.json").is_file():
            return folder
    names = [row["name"] for row in list_models()]
    close = get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise EdgeavError(
        f"model: {name!r} is neither a shipped model ({', '.join(names) or 'none'}) nor a folder with model.json.{hint}"
        " To list them: edgeav models"
    )


def import_folder(source: str) -> Path:
    """Where an import goes if nothing else is asked: models/, then the name of its source."""
    path = Path(source).expanduser().absolute()
    return Path("models") / (path.name if path.is_dir() else path.stem)


def list_models() -> list[dict[str, Any]]:
    """One row a shipped model: name, family, bytes, number of tokens, path."""
    rows = []
    for path in sorted(SHIPPED.glob("*/model.json")):
        config = json.loads(path.read_text())
        weights = path.with_name("model.safetensors")
        size_mb = round(weights.stat().st_size / 1e6, 2) if weights.exists() else None
        row = {"name": path.parent.name, "family": config["family"], "size_mb": size_mb}
        rows.append(row | {"tokens": len(config["tokens"]), "folder": str(path.parent)})
    return rows
