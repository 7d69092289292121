"""What an engine cannot do is refused when a recipe is read, and docs/quantize.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeav.errors import EdgeavError
from edgeav.quant.plan import FORMATS, Plan
from edgeav.quant.support import FORMATS_OF, RANGES_OF, REAL, arithmetic, check, problems
from edgeav.recipe import Recipe
from edgeav.runtime.bundle_check import PRECISIONS
from edgeav.target import EngineName


def quantize(*settings: str, export: str = "onnxruntime") -> Recipe:
    return Recipe.load("int8", [f"export=[{export}]", *(f"stages.0.quantize.{setting}" for setting in settings)])


@pytest.mark.parametrize("engine", FORMATS_OF)
def test_every_format_an_engine_lists_is_accepted_and_every_other_is_refused_with_the_list(engine: str) -> None:
    target = {"executorch": "executorch-xnnpack", "aoti": "cuda-aoti"}.get(engine, engine)
    for name in FORMATS:
        if name == "fp32":
            continue
        if name in FORMATS_OF[engine]:  # type: ignore[index]
            assert quantize(f"format={name}", export=target).plans == [Plan(format=name)]
        else:
            able = ", ".join(FORMATS_OF[engine])  # type: ignore[index]
            with pytest.raises(EdgeavError, match=f"{engine} cannot do {name}; it can do {able}"):
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


@pytest.mark.parametrize(
    ("engine", "plan", "said"),
    [
        ("onnxruntime", Plan(format="fp8-e4m3", roles={"head": "int8"}), "fp8-e4m3 beside fp32, not beside int8"),
        ("onnxruntime", Plan(roles={"head": "fp8-e4m3"}), "make fp8-e4m3 the `format`"),
        ("onnxruntime", Plan(format="fp8-e4m3", ranges="mse"), "minmax ranges alone for fp8-e4m3, no mse"),
        ("onnxruntime", Plan(format="fp8-e4m3", roles={"attention-matmul": "fp8-e4m3"}), "activations alone"),
        ("openvino", Plan(format="fp8-e4m3", roles={"head": "fp8-e5m2"}), "fp8-e4m3 beside fp32, not beside fp8-e5m2"),
        ("aoti", Plan(format="bf16", keep_float=("head",)), "head cannot stay fp32"),
    ],
)
def test_fp8_stands_alone(engine: EngineName, plan: Plan, said: str) -> None:
    assert any(said in problem for problem in problems(engine, plan))
    assert not problems("onnxruntime", Plan(format="fp8-e4m3", roles={"head": "fp8-e5m2", "fusion": "fp32"}))


def test_a_scan_that_weighs_errors_against_time_refuses_fp8_which_saves_none() -> None:
    with pytest.raises(EdgeavError, match="FP8 saves none here"):
        quantize("format=fp8-e4m3", "keep_float=auto", "wer_budget_abs=0.3")


def test_only_what_multiplies_in_its_format_is_called_real() -> None:
    mixed = Plan(format="int4-weights", roles={"visual-cnn": "int8"})
    assert arithmetic("onnxruntime", mixed) == {"int8": "real", "int4-weights": "emulated"}
    fp8 = Plan(format="fp8-e4m3")
    assert arithmetic("aoti", fp8) == {"fp8-e4m3": "real"}
    assert arithmetic("onnxruntime", fp8) == arithmetic("openvino", fp8) == {"fp8-e4m3": "emulated"}
    assert all(set(REAL[engine]) <= set(FORMATS_OF[engine]) for engine in FORMATS_OF)


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
