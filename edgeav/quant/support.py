"""What each engine makes of each format: the one place that knows, for errors and for docs/quantize.md.

A format is listed where it was exported, reloaded and compared. What is missing here is refused when a recipe is read,
not after an hour of training.
"""

from __future__ import annotations

from edgeav.errors import EdgeavError
from edgeav.quant.plan import RANGES, Format, Plan, Ranges, Role
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
        "fp16": "float16 weights in the file, float32 once loaded: saves bytes, not time",
    },
    "openvino": {
        "int8": "NNCF: u8 activations with ranges from clips, s8 weights, one scale per output channel",
        "int8-dynamic": "linear layers: activations to 8 bits in groups of 32 as they come, s8 weights",
        "int8-weights": "linear layers: s8 weights per output channel, multiplied in float32",
        "int4-weights": "linear layers: 4 bits with a scale for 64 neighbours, or fewer, multiplied in float32",
        "fp16": "all float weights as float16 in the file, multiplied in float32",
        "bf16": "all that is not int8 multiplied in bfloat16, on CPUs that have it; the file is float32",
    },
    "executorch": {
        "int8": "PT2E: s8 activations with ranges from clips, s8 weights, one scale per output channel",
        "int8-dynamic": "linear layers: activations to s8 as they come, s8 weights per output channel",
    },
}
RANGES_OF: dict[EngineName, tuple[Ranges, ...]] = {
    "onnxruntime": RANGES,
    "openvino": ("minmax", "percentile", "mse"),
    "executorch": ("minmax", "mse"),
}
WHOLE: tuple[Format, ...] = ("fp16", "bf16")  # OpenVINO: of a whole graph, or not at all


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
    return found + (_openvino(plan) if engine == "openvino" and not unknown else [])


def _is_empty(role: Role, format: Format) -> bool:
    """A wish that would change nothing."""
    without_weights = role in NO_WEIGHTS and format in (*LINEAR_ONLY, "fp16")
    return without_weights or (role in NO_LINEAR and format in LINEAR_ONLY)


def _empty(role: Role, format: Format) -> str:
    why = "multiplies activations alone" if role in NO_WEIGHTS else "has convolutions alone"
    return f"roles.{role}: {format} is for the weights of linear layers, and {role} {why}; take int8 or fp32"


def _openvino(plan: Plan) -> list[str]:
    """Formats that OpenVINO has for a whole graph."""
    formats, found = plan.formats, []
    for whole in (*WHOLE, "int8-dynamic"):
        if whole in formats and plan.format != whole:
            found.append(f"openvino has {whole} for a whole graph; make it `format`, and other formats its `roles`")
    if plan.format in WHOLE and set(formats.get("fp32", ())) - set(NO_WEIGHTS):
        kept = ", ".join(role for role in formats["fp32"] if role not in NO_WEIGHTS)
        found.append(f"openvino has {plan.format} for a whole graph: {kept} cannot stay fp32 in it")
    if plan.format == "int8-dynamic" and {"int8-weights", "int4-weights"} & set(formats):
        found.append(
            "openvino multiplies all compressed weights alike: no int8-weights or int4-weights beside int8-dynamic"
        )
    return found
