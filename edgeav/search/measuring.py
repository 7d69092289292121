"""What a candidate is really like: exported, reloaded in its runtime, timed, and asked the validation clips."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeav.errors import EdgeavError
from edgeav.run import read_json, write_json
from edgeav.search.budget import Measures
from edgeav.search.candidate import plan_of
from edgeav.search.job import Job
from edgeav.search.trial_run import TrialRun, locked
from edgeav.target import Precision

if TYPE_CHECKING:
    from edgeav.data.cache import DecodedClips
    from edgeav.models import AVModel

REFERENCE = "reference.json"
TIMED, WARM_UP = 20, 3  # inferences


@dataclass(frozen=True)
class Reference:
    """The float model that a search begins with, exported and measured like its candidates."""

    wer: float
    ms: float
    mb: float
    seconds: float
    """Length of the input that is timed."""
    texts: list[str]


class Gauge:
    """Measures models for one search."""

    def __init__(self, job: Job, run: TrialRun) -> None:
        self.job, self.run = job, run

    @cached_property
    def clips(self) -> DecodedClips:
        """Validation clips: test clips must not choose anything."""
        valid = self.run.corpus.valid[: self.job.search.utterances]
        if not valid:
            raise EdgeavError(f"search: corpus {self.run.corpus.name} has no validation clips to choose by")
        recipe = self.job.recipe
        return self.run.decoded(recipe.corpus, recipe.seed, f"valid-{len(valid)}", valid)

    @cached_property
    def reference(self) -> Reference | None:
        """Measured once for all workers; None for a new model without a teacher."""
        if self.job.reference is None:
            return None
        path = self.run.shared / REFERENCE
        with locked(self.run.shared / "reference.lock"):
            if not path.exists():
                folder = self.run.shared / self.job.reference
                measures, texts = self._measure(folder, "fp32")
                seconds = self._seconds(folder)
                write_json(path, asdict(Reference(*measures.all, seconds, texts)))
        return Reference(**read_json(path))

    def limits(self) -> dict[str, float]:
        """The budget in the units of `Measures`."""
        from edgeav.macs import SECONDS

        found, asked = self.reference, self.job.search.budget
        if found is None and asked.wer_increase_abs is not None:
            raise EdgeavError(
                "search: budget.wer_increase_abs: more than what? The model has no weights yet, and `distill` names no"
                " teacher; set budget.wer, or name one"
            )
        return asked.limits(found.seconds if found else SECONDS, found.wer if found else 0.0)

    def measure(self, folder: Path) -> tuple[Measures, dict[str, Any]]:
        """Of the model in `folder`, and how much worse it is than the reference, with its 95 % interval."""
        from edgeav.measure import wer_increase

        plan = plan_of(folder)
        measures, texts = self._measure(folder, plan.format if plan else "fp32")
        if self.reference is None:
            return measures, {}
        rows = [row.text for row in self.clips.rows]
        change = wer_increase(rows, self.reference.texts, texts, seed=self.job.recipe.seed)
        return measures, {"increase": list(change)}

    def _measure(self, folder: Path, precision: Precision) -> tuple[Measures, list[str]]:
        from edgeav.device import Device
        from edgeav.measure import word_error_rate
        from edgeav.profiling import profile
        from edgeav.runtime.bench import Workload
        from edgeav.work import export_bundle

        place = self.run.place / "bundle"
        shutil.rmtree(place, ignore_errors=True)
        bundle = export_bundle(self.run, folder, self.job.target, precision, place)
        workload = Workload(self._seconds(folder), TIMED, WARM_UP)
        timed = profile(place, Device.load("this-machine"), workload, operators=False)
        texts = self._texts(place)
        shutil.rmtree(place)
        wer = word_error_rate([row.text for row in self.clips.rows], texts, self.job.recipe.seed).wer
        assert timed.cpu_ms is not None, "a profile of this machine has process CPU times"
        # Process CPU time on one thread: the wall time of an idle machine, also on a busy one.
        return Measures(wer, round(timed.cpu_ms.p50, 3), round(bundle.size_bytes / 1e6, 4)), texts

    def _seconds(self, folder: Path) -> float:
        from edgeav.macs import typical_steps
        from edgeav.models import ModelConfig
        from edgeav.spec import load

        config = load(ModelConfig, folder / "model.json")
        return typical_steps(config) / config.inputs.steps_per_second

    def _texts(self, bundle_folder: Path) -> list[str]:
        from edgeav.measure import Recognizer
        from edgeav.runtime.bundle import read_bundle
        from edgeav.runtime.engines import open_engine

        bundle = read_bundle(bundle_folder)
        engine = open_engine(bundle)
        asked = Recognizer(lambda inputs: engine.run(*inputs), bundle.features, bundle.tokens, bundle.blank)
        media = (self.clips.media(index) for index in range(len(self.clips)))
        return [asked.text(one.waveform, one.mouth) for one in media]


def parts_of(model: AVModel, folder: Path, table: Any) -> dict[str, dict[str, float]]:
    """ "ms" and "mb" by format, for predictions."""
    from edgeav.search.parts import size_parts, time_parts

    plan = plan_of(folder)
    return {"ms": time_parts(model, plan, table), "mb": size_parts(model, plan)}
