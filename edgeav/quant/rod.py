"""The measuring rod of the sensitivity scan: artifacts of ONNX Runtime with some roles quantized, run on clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeav.data.cache import DecodedClips
from edgeav.exporters.onnx import integer_form, quantize_onnx, write_onnx
from edgeav.exporters.onnx_weights import module_of_name
from edgeav.exporters.rewrites import deployable, onnxruntime_form
from edgeav.measure import greedy_text, wer_increase
from edgeav.models import AVModel
from edgeav.quant.plan import Plan, Role, role_of
from edgeav.quant.sensitivity import Effect
from edgeav.runtime.features import Inputs, empty_inputs, model_inputs
from edgeav.runtime.onnxruntime_session import open_session
from edgeav.runtime.operators import RUNS, onnxruntime_nodes
from edgeav.target import OnnxRuntimeOptions

SECONDS = 4.0  # of the clip whose operators are timed


class Rod:
    """Calibrated once: the ranges of the float model serve every artifact. The engine is imported when it runs."""

    def __init__(
        self, model: AVModel, plan: Plan, calibration: Sequence[Inputs], clips: DecodedClips, folder: Path
    ) -> None:
        self.config, self.plan, self.calibration = model.config, plan, calibration
        self.model = onnxruntime_form(deployable(model))
        self.clips, self.folder = clips, folder
        there = {role_of(path) for path, _ in model.named_modules()}
        self.roles: list[Role] = [r for f, roles in plan.formats.items() if f != "fp32" for r in roles if r in there]
        write_onnx(self.model, folder / "float.onnx", OnnxRuntimeOptions().opset)
        self.references = [row.text for row in clips.rows]
        self.float_texts, self.float_log_probs = self._run(folder / "float.onnx")

    def effect(self, roles: tuple[Role, ...]) -> Effect:
        """Of these roles, quantized."""
        if not roles:
            return Effect(0.0, 0.0, 0.0, 0.0)
        texts, log_probs = self._run(self.artifact(roles))
        drift = float(np.mean([divergence(*pair) for pair in zip(self.float_log_probs, log_probs, strict=True)]))
        return Effect(drift, *wer_increase(self.references, self.float_texts, texts))

    def saved_ms(self) -> dict[str, float]:
        """By role, "" for what has none: float minus quantized, when all roles are."""
        before, after = (self._times(f) for f in (self.folder / "float.onnx", self.artifact(tuple(self.roles))))
        return {role: before.get(role, 0.0) - after.get(role, 0.0) for role in {*before, *after}}

    def artifact(self, roles: tuple[Role, ...]) -> Path:
        """The file with these roles quantized, as the exporter would write it."""
        path = self.folder / "quantized.onnx"
        others = {role: "fp32" for role in self.roles if role not in roles}
        plan = self.plan.model_copy(update={"roles": {**self.plan.roles, **others}})
        source = self._source(plan)
        quantize_onnx(source, path, plan, self.calibration, source.with_suffix(".json"))
        return path

    def _source(self, plan: Plan) -> Path:
        """The float file that the exporter starts from: the visual stem has another form where it is quantized."""
        form = integer_form(self.model, plan)
        path = self.folder / ("float.onnx" if form is self.model else "blocks.onnx")
        if not path.exists():
            write_onnx(form, path, OnnxRuntimeOptions().opset)
        return path

    def _run(self, path: Path) -> tuple[list[str], list[NDArray[np.float32]]]:
        """Texts, and (N, V) log-probabilities of the steps that are not padding."""
        session, texts, answers, features = open_session(path), [], [], self.config.inputs
        for index in range(len(self.clips)):
            media = self.clips.media(index)
            sound, lips = media.waveform if features.audio else None, media.mouth if features.video else None
            inputs = model_inputs(sound, lips, features)
            answer = np.asarray(session.run(["log_probs"], inputs.named(features.names))[0])
            texts.append(greedy_text(answer, inputs, self.config.tokens, self.config.blank))
            answers.append(answer[0])
        return texts, answers

    def _times(self, path: Path) -> dict[str, float]:
        """Milliseconds of each role's operators in one inference."""
        steps = min(math.ceil(SECONDS * self.config.inputs.steps_per_second), self.config.max_steps)
        inputs = empty_inputs(self.config.inputs, steps)
        inputs.presence[:] = 1
        found: dict[str, float] = {}
        for node in onnxruntime_nodes(path, inputs.named(self.config.inputs.names), threads=1):
            role = role_of(module_of_name(node.name)) or ""
            found[role] = found.get(role, 0.0) + node.ms / RUNS
        return found


def divergence(true: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """(N, V), (N, V) log-probabilities -> nats, the mean over the steps."""
    return float((np.exp(true) * (true - found)).sum(axis=-1).mean())
