"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeav.runtime.inputs import Readings as Kind

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting; can be repeated.")
]
AGAIN = "surest: where sound and lips leave the model unsure, each is read alone too, and the surest counts."
Readings = Annotated[Kind, typer.Option(help=AGAIN)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
