"""What a step of a recipe is: its settings and its work in one class, in a file of its own.

To add a stage: write `edgeav/stages/<verb>.py` with one subclass, and name it in `edgeav/stages/__init__.py`.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from edgeav.spec import Strict

if TYPE_CHECKING:
    from edgeav.run import Run


class Stage(Strict):
    """The settings of one stage (its fields) and `apply`, which does the work.

    Its module is imported whenever a recipe is read, so torch and the like are imported inside `apply`.
    """

    def facts(self) -> dict[str, str]:
        """Name -> hash of what the result depends on beside the settings and the model before, such as a teacher."""
        return {}

    @abstractmethod
    def apply(self, model_folder: Path, out: Path, run: Run) -> None:
        """Read the model in `model_folder`, write the changed model into the empty folder `out`.

        Both hold model.json, model.safetensors, tokenizer.model and, once quantized, quantization.json.
        Randomness comes from `run.recipe.seed`; EdgeavError when these settings do not fit this model.
        """


def copy_files(source: Path, out: Path) -> None:
    """All that lies beside a model too: the tokenizer, a plan, a card."""
    from edgeav.run import DONE

    for path in source.iterdir():
        if path.is_file() and path.name != DONE:
            shutil.copy2(path, out / path.name)
