"""Runs an AOTInductor package (.pt2) through PyTorch on its device. Imports torch only for such a bundle."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeav.errors import EdgeavError
from edgeav.runtime.bundle import Bundle
from edgeav.runtime.features import Array, Inputs


class Aoti:
    name: str = "aoti"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import torch

        self.version, self._names = str(torch.__version__), bundle.input_names
        self._device = str(bundle.exported.get("device", "cuda"))
        if self._device == "cuda" and not torch.cuda.is_available():
            raise EdgeavError(f"{bundle.folder} was compiled for an NVIDIA GPU, and PyTorch sees none here")
        torch.set_num_threads(threads)
        self._model: Any = torch._inductor.aoti_load_package(str(bundle.model_path))

    def run(self, audio: Array, video: Array, presence: Array) -> Array:
        import torch

        feed = Inputs(audio, video, presence).named(self._names)
        arrays = [np.ascontiguousarray(array, dtype=np.float32) for array in feed.values()]
        with torch.inference_mode():
            log_probs = self._model(*(torch.from_numpy(array).to(self._device) for array in arrays))
        return np.array(log_probs.cpu().numpy(), dtype=np.float32)  # .cpu() waits for the GPU
