"""What each engine makes of each format: the one place that knows, for errors, reports and docs/quantize.md.

A format is listed where it was exported, reloaded and compared. What is missing here is refused when a recipe is read,
not after an hour of training.
"""

from __future__ import annotations

from typing import Literal

from edgeav.errors import EdgeavError
from edgeav.quant.plan import FP8, RANGES, Format, Plan, Ranges, Role
from edgeav.target import EngineName

LINEAR_ONLY: tuple[Format, ...] = ("int8-dynamic", "int8-weights", "int4-weights")
NO_LINEAR: tuple[Role, ...] = ("visual-stem", "conv-depthwise")
NO_WEIGHTS: tuple[Role, ...] = ("attention-matmul",)

FORMATS_OF: dict[EngineName, dict[Format, str]] = {
    "onnxruntime": {
        "int8": "QDQ: u8 activations with ranges from clips, s8 weights, one scale per output channel",
        "int8-dynamic": "linear layers: activations to u8 as they come, s8 weights per output channel",
        "int8-weights": "linear layers: s8 weights per output channel in the file, float32 once loaded",
        "int4-weights": "linear layers: MatMulNBits, 4 bits with a scale for 32 neighbours, multiplied in float32",
        "fp8-e4m3": "QDQ: e4m3 weights and activations with ranges from clips, multiplied in float32",
        "fp8-e5m2": "QDQ: e5m2 weights and activations with ranges from clips, multiplied in float32",
        "fp16": "float16 weights in the file, float32 once loaded: saves bytes, not time",
    },
    "openvino": {
        "int8": "NNCF: u8 activations with ranges from clips, s8 weights, one scale per output channel",
        "int8-dynamic": "linear layers: activations to 8 bits in groups of 32 as they come, s8 weights",
        "int8-weights": "linear layers: s8 weights per output channel, multiplied in float32",
        "int4-weights": "linear layers: 4 bits with a scale for 64 neighbours, or fewer, multiplied in float32",
        "fp8-e4m3": "NNCF: rounded to e4m3 and multiplied in float32, slower than that; not over time by channel",
        "fp8-e5m2": "NNCF: rounded to e5m2 and multiplied in float32, slower than that; not over time by channel",
        "fp16": "all float weights as float16 in the file, multiplied in float32",
        "bf16": "all that is not int8 multiplied in bfloat16, on CPUs that have it; the file is float32",
    },
    "executorch": {
        "int8": "PT2E: s8 activations with ranges from clips, s8 weights, one scale per output channel",
        "int8-dynamic": "linear layers: activations to s8 as they come, s8 weights per output channel",
    },
    "aoti": {
        "fp8-e4m3": "linear layers: e4m3 by torchao with a scale for each row, activations as they come; else bfloat16",
        "bf16": "everything in bfloat16",
    },
}
RANGES_OF: dict[EngineName, tuple[Ranges, ...]] = {
    "onnxruntime": RANGES,
    "openvino": ("minmax", "percentile", "mse"),
    "executorch": ("minmax", "mse"),
    "aoti": ("minmax",),
}
WHOLE: tuple[Format, ...] = ("fp16", "bf16")  # OpenVINO and AOTInductor: of a whole graph, or not at all


Arithmetic = Literal["real", "emulated"]
# Multiplied in the format itself; elsewhere numbers are rounded to it and multiplied in float32.
REAL: dict[EngineName, tuple[Format, ...]] = {
    "onnxruntime": ("int8", "int8-dynamic"),
    "openvino": ("int8", "int8-dynamic", "bf16"),
    "executorch": ("int8", "int8-dynamic"),
    "aoti": ("fp8-e4m3", "bf16"),
}


def arithmetic(engine: EngineName, plan: Plan) -> dict[Format, Arithmetic]:
    """Of each format of `plan`: whether `engine` multiplies in it, or only rounds to it."""
    return {f: "real" if f in REAL[engine] else "emulated" for f in plan.formats if f != "fp32"}


def check(name: str, engine: EngineName, plan: Plan) -> None:
    """EdgeavError says all that the target `name` cannot do of `plan`, and what it can."""
    found = problems(engine, plan)
    if found:
        raise EdgeavError("\n".join(f"{name}: {problem}" for problem in found))


def problems(engine: EngineName, plan: Plan) -> list[str]:
    """What `engine` cannot do of `plan`, each with what it can."""
    can = FORMATS_OF[engine]
    unknown = [f for f in plan.formats if f != "fp32" and f not in can]
    found = [f"{engine} cannot do {f}; it can do {', '.join(can)}" for f in unknown]
    if plan.ranges not in RANGES_OF[engine]:
        found.append(f"{engine} has no {plan.ranges} ranges; it has {', '.join(RANGES_OF[engine])}")
    found += [_empty(role, f) for role, f in plan.roles.items() if _is_empty(role, f)]
    if unknown:
        return found
    match engine:
        case "openvino":
            return found + _fp8(engine, plan) + _openvino(plan)
        case "aoti":
            return found + _fp8(engine, plan) + _whole(engine, plan, ("bf16",))
        case _:
            return found + _fp8(engine, plan)


def _is_empty(role: Role, format: Format) -> bool:
    """A wish that would change nothing."""
    without_weights = role in NO_WEIGHTS and format in (*LINEAR_ONLY, *FP8, "fp16")
    return without_weights or (role in NO_LINEAR and format in LINEAR_ONLY)


def _empty(role: Role, format: Format) -> str:
    what = "layers" if format in FP8 else "linear layers"
    why = "multiplies activations alone" if role in NO_WEIGHTS else "has convolutions alone"
    return f"roles.{role}: {format} is for the weights of {what}, and {role} {why}; take int8 or fp32"


def _fp8(engine: EngineName, plan: Plan) -> list[str]:
    """FP8 stands alone: ONNX Runtime must not optimize its graph, NNCF makes one format of a whole graph."""
    asked = [f for f in FP8 if f in plan.formats]
    if not asked:
        return []
    allowed = FP8 if engine == "onnxruntime" else asked[:1]
    others = [f for f in plan.formats if f != "fp32" and f not in allowed]
    found = [f"{engine} has {asked[0]} beside fp32, not beside {f}" for f in others]
    if plan.format not in FP8:
        found.append(f"{engine}: make {asked[0]} the `format`, and keep roles in fp32 that are not to have it")
    if plan.ranges != "minmax":
        found.append(f"{engine} has minmax ranges alone for {asked[0]}, no {plan.ranges}")
    return found


def _whole(engine: EngineName, plan: Plan, wholes: tuple[Format, ...]) -> list[str]:
    """Formats that an engine has for a whole graph."""
    formats = plan.formats
    found = [
        f"{engine} has {whole} for a whole graph; make it `format`, and other formats its `roles`"
        for whole in wholes
        if whole in formats and plan.format != whole
    ]
    if plan.format in WHOLE and set(formats.get("fp32", ())) - set(NO_WEIGHTS):
        kept = ", ".join(role for role in formats["fp32"] if role not in NO_WEIGHTS)
        found.append(f"{engine} has {plan.format} for a whole graph: {kept} cannot stay fp32 in it")
    return found


def _openvino(plan: Plan) -> list[str]:
    formats, found = plan.formats, _whole("openvino", plan, (*WHOLE, "int8-dynamic"))
    if plan.format == "int8-dynamic" and {"int8-weights", "int4-weights"} & set(formats):
        found.append(
            "openvino multiplies all compressed weights alike: no int8-weights or int4-weights beside int8-dynamic"
        )
    return found
