"""What the documentation says about exports is so: docs/exports.md is made from the models that are exported here.

EDGEAV_REWRITE_DOCS=1 pytest tests/test_export_matrix.py writes the table anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from export_combinations import ALL, ENCODERS, Combination, missing_pairs
from tiny_av import all_kinds, clip, target
from tiny_models import AUDIO, FUSION, VIDEO

from edgeav.exporters import export
from edgeav.exporters.parity import compare
from edgeav.models import random_model

TARGETS = ("onnxruntime", "openvino", "executorch-xnnpack")
TOLERANCE = 1e-3
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
# Every part once, in the default suite; all of them, on all runtimes, in the slow one.
QUICK = [ALL[row] for row in (0, 3, 6, 8, 13, 16, 20, 26)]


def check(combination: Combination, name: str, folder: Path) -> None:
    model = random_model(0, combination.config())
    features = model.config.inputs
    bundle = export(model, target(name), "fp32", [], [(None, clip(16, seed=8, features=features))], folder)
    parity = compare(bundle, model, all_kinds(features))
    assert parity.max_abs <= TOLERANCE and parity.transcripts_equal, parity
    assert len(parity.lengths) >= 5


def test_every_pair_of_parts_is_in_a_combination() -> None:
    assert missing_pairs() == set()
    assert set().union(*(row.parts for row in QUICK)) == {*ENCODERS, *AUDIO, *VIDEO, *FUSION}


@pytest.mark.parametrize("combination", QUICK, ids=str)
def test_each_part_exports_with_a_dynamic_length_and_answers_as_pytorch(
    combination: Combination, tmp_path: Path
) -> None:
    check(combination, "onnxruntime", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("combination", ALL, ids=str)
def test_every_combination_exports_to_every_runtime(combination: Combination, name: str, tmp_path: Path) -> None:
    check(combination, name, tmp_path)


def test_the_table_in_the_docs_lists_the_combinations_that_are_tested(repository: Path) -> None:
    path = repository / "docs" / "exports.md"
    before, _, rest = path.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    text = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if os.environ.get("EDGEAV_REWRITE_DOCS"):
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text, "write it anew with EDGEAV_REWRITE_DOCS=1"


def table() -> str:
    lines = ["| encoder | audio front end | visual front end | fusion | " + " | ".join(TARGETS) + " |"]
    lines += ["|---|---|---|---|" + ":-:|" * len(TARGETS)]
    for row in ALL:
        parts = " | ".join(part or "–" for part in (row.encoder, row.audio, row.video, row.fusion))
        lines.append(f"| {parts} | " + " | ".join("yes" for _ in TARGETS) + " |")
    return "\n".join(lines)
