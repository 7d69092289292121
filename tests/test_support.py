"""What an engine cannot do is refused when a recipe is read, and docs/quantize.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeav.errors import EdgeavError
from edgeav.quant.plan import FORMATS, Plan
from edgeav.quant.support import FORMATS_OF, RANGES_OF, check, problems
from edgeav.recipe import Recipe
from edgeav.runtime.bundle_check import PRECISIONS


def quantize(*settings: str, export: str = "onnxruntime") -> Recipe:
    return Recipe.load("int8", [f"export=[{export}]", *(f"stages.0.quantize.{setting}" for setting in settings)])


@pytest.mark.parametrize("engine", FORMATS_OF)
def test_every_format_an_engine_lists_is_accepted_and_every_other_is_refused_with_the_list(engine: str) -> None:
    target = {"executorch": "executorch-xnnpack"}.get(engine, engine)
    for name in FORMATS:
        if name == "fp32":
            continue
        if name in FORMATS_OF[engine]:  # type: ignore[index]
            assert quantize(f"format={name}", export=target).plans == [Plan(format=name)]
        else:
            with pytest.raises(EdgeavError, match=rf"{engine} cannot do {name}; it can do int8, int8-dynamic"):
                quantize(f"format={name}", export=target)


def test_ranges_that_an_engine_lacks_are_refused_with_those_it_has() -> None:
    assert quantize("ranges=entropy").plans
    with pytest.raises(EdgeavError, match="executorch has no percentile ranges; it has minmax, mse"):
        quantize("ranges=percentile", export="executorch-xnnpack")
    assert all("minmax" in ranges for ranges in RANGES_OF.values())


def test_fp32_is_no_format_of_a_plan_and_every_mistake_is_said() -> None:
    with pytest.raises(EdgeavError, match="fp32 is exported anyway"):
        quantize("format=fp32")
    with pytest.raises(EdgeavError, match="keep_float: auto and wer_budget_abs belong together"):
        quantize("keep_float=auto")
    with pytest.raises(EdgeavError, match="did you mean 'feed-forward'"):
        quantize("roles={feed-forwards: fp16}")


def test_a_role_gets_its_own_format_before_that_of_the_plan() -> None:
    plan = Plan(format="int8", roles={"head": "fp16", "attention-matmul": "int8"}, keep_float=("fusion", "head"))
    assert plan.format_of("blocks.3.feed_forward_1.up") == "int8"
    assert plan.format_of("head") == "fp16"
    assert plan.format_of("fusion.up.narrow") == "fp32"
    assert plan.quantizes("blocks.0.attention")
    assert plan.format_of("blocks.0.norms.1") is None
    assert plan.formats["fp32"] == ("fusion",)


def test_only_formats_with_ranges_need_clips() -> None:
    assert Plan().needs_calibration
    assert Plan(format="int8-weights", roles={"head": "int8"}).needs_calibration
    assert not Plan(format="int8-dynamic", roles={"head": "fp16"}).needs_calibration


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(format="int8", roles={"head": "bf16"}), "for a whole graph; make it `format`"),
        (Plan(format="fp16", keep_float=("head",)), "head cannot stay fp32"),
        (Plan(format="int8-dynamic", roles={"head": "int4-weights"}), "beside int8-dynamic"),
        (Plan(roles={"conv-depthwise": "int4-weights"}), "has convolutions alone"),
        (Plan(roles={"attention-matmul": "fp16"}), "multiplies activations alone"),
    ],
)
def test_mixtures_that_openvino_cannot_do_are_refused_with_the_reason(plan: Plan, said: str) -> None:
    with pytest.raises(EdgeavError, match=said):
        check("openvino", "openvino", plan)
    assert not problems("openvino", Plan(format="bf16", roles={"visual-cnn": "int8"}))


def test_a_bundle_may_have_every_format_that_a_plan_may_have() -> None:
    assert PRECISIONS == FORMATS  # written twice: a device that reads bundles has no recipes


def test_the_table_in_the_docs_is_what_the_code_says(repository: Path) -> None:
    text = (repository / "docs" / "quantize.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- table: begin -->\n(.*)<!-- table: end -->", text, re.DOTALL)
    assert table is not None
    assert table[1] == support_table(), "paste this into docs/quantize.md:\n" + support_table()


def support_table() -> str:
    """Markdown: a row a format, a column an engine."""
    rows = ["| format | " + " | ".join(FORMATS_OF) + " |", "|---" * (len(FORMATS_OF) + 1) + "|"]
    for name in FORMATS:
        if name != "fp32":
            cells = [can.get(name, "–") for can in FORMATS_OF.values()]
            rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    ranges = (", ".join(RANGES_OF[engine]) for engine in FORMATS_OF)
    return "\n".join([*rows, "| ranges of `int8` | " + " | ".join(ranges) + " |", ""])
