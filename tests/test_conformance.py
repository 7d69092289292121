"""The conformance kit: mistakes put into our models, features and importers on purpose; every one must be noticed.

A comparison that passes proves something only if it would have failed. `docs/conformance.md` holds the table;
EDGEAV_REWRITE_DOCS=1 writes it anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from comparisons import AUTO_AVSR, QUIET, Comparison, Names, Parakeet, Text
from faults import Fault, feature_faults, model_faults
from feature_oracles import LIPS, LOG_MEL, NORMALIZED, SAMPLES

FAULTS = [*model_faults(), *feature_faults()]
COMPARISONS = (AUTO_AVSR, QUIET, Names(), Parakeet(), Text(), LOG_MEL, NORMALIZED, SAMPLES, LIPS)
BEGIN, END = "<!-- faults: written by tests/test_conformance.py -->", "<!-- end of faults -->"


def caught(fault: Fault) -> bool:
    return not fault.comparison.difference(fault.inject(fault.comparison.subject())) <= fault.comparison.tolerance


def table(faults: Iterable[Fault]) -> str:
    """Markdown: how many of them are caught, and by what."""
    rows, found = [], 0
    for fault in faults:
        seen = caught(fault)
        found += seen
        allowed = f"{fault.comparison.tolerance:.0e}" if fault.comparison.tolerance else "none"
        rows.append(f"| {fault.name} | {fault.comparison.name} | {allowed} | {'yes' if seen else 'NO'} |")
    head = [f"**{found} of {len(rows)} caught.**", "", "| mistake | compared with | difference allowed | caught |"]
    return "\n".join([*head, "|---|---|---|---|", *rows])


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.name)
def test_without_a_mistake_ours_equals_the_reference(comparison: Comparison) -> None:
    assert comparison.difference(comparison.subject()) <= comparison.tolerance


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_mistake_is_noticed(fault: Fault) -> None:
    assert caught(fault)


def test_the_docs_hold_the_table_of_these_mistakes(repository: Path) -> None:
    path = repository / "docs" / "conformance.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    written = f"{before}{BEGIN}\n{table(FAULTS)}\n{END}{rest.split(END)[1]}"
    if os.environ.get("EDGEAV_REWRITE_DOCS"):
        path.write_text(written, encoding="utf-8")
    assert written == text or os.environ.get("EDGEAV_REWRITE_DOCS"), "EDGEAV_REWRITE_DOCS=1 writes docs/conformance.md"
