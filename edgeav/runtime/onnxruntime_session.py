"""ONNX Runtime's sessions, all opened alike: on the CPU, in one thread unless more are asked for, errors said alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ERRORS_ONLY = 3  # its warnings are about its own memory plan


def open_session(
    model: Path | bytes,
    threads: int = 1,
    *,
    optimized: bool = True,
    dimensions: Mapping[str, int] | None = None,
    without: Sequence[str] = (),
    profile: Path | None = None,
    save: Path | None = None,
) -> InferenceSession:
    """The model file or its bytes, ready to run. `threads` 0: as many as ONNX Runtime likes.

    `dimensions`: sizes of the model's named sides. `without`: names of optimizers. `profile`: where its traces begin.
    `save`: the graph as it was optimized.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = ERRORS_ONLY
    for side, size in (dimensions or {}).items():
        options.add_free_dimension_override_by_name(side, size)
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if save is not None:
        options.optimized_model_filepath = str(save)
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without) or None
    )
