"""Is our int8 faster than what others make of the same exported student out of the box, and is its WER no worse?

    python benchmarks/peers.py                                    # the demo model, all peers, 100 test clips
    python benchmarks/peers.py --clips 300 --sources ours plain --peers onnxruntime-static nncf-openvino
    python benchmarks/peers.py --python olive=path/to/python      # an environment that is there already

Ours is recipes/int8.yaml. A peer gets the float32 ONNX file of OUR export (`ours`: the student after our exact
rewrites, 2-D stem and folded batch norms, so that only quantization differs), or of torch.onnx.export alone (`plain`);
where it fails on ours, a second chance (`eased`): ours without the inner shapes that torch noted, and clips padded to
one length. With our calibration clips it quantizes with its own defaults, in its own environment (benchmarks/peers/).
Everything is then timed here in turn with our fp32 and our int8, process CPU time, 1 thread, in our ONNX Runtime or
OpenVINO (f32), and transcribes the same test clips. What fails or is slower than float says so.

What is done is not done again. Writes benchmarks/results/peers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import onnx
import torch

from benchmarks.peers.environment import ENVIRONMENTS, OUTCOME, PEERS, SCRIPT, Failed, Peer, python_of, quantize, record
from benchmarks.peers.measurement import FACTS, SPEED, WORKLOAD, bundle_of, hear, quality, race, times_faster
from benchmarks.peers.table import BARS, Row, sentence, table, unanswered, verdicts
from edgeav.catalog import find_model
from edgeav.compress import Steps, steps_of
from edgeav.data.cache import DecodedClips
from edgeav.exporters.onnx import write_onnx
from edgeav.models import AVModel, load_model
from edgeav.progress import TerminalProgress
from edgeav.quant.calibration import CalibrationInputs
from edgeav.quant.plan import load_plan
from edgeav.recipe import Recipe
from edgeav.results import provenance
from edgeav.run import Run, Step, read_json
from edgeav.runtime.bundle import FILE, read_bundle
from edgeav.runtime.engines import padded
from edgeav.runtime.features import Inputs
from edgeav.runtime.machine import machine
from edgeav.target import OnnxRuntimeOptions, Precision
from edgeav.work import calibration_inputs

DEMO = "av-fast-conformer-demo"
RESULTS = Path(__file__).parent / "results" / "peers.json"
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
MEASURING = SCRIPT.with_name("measurement.py")
SOURCES = ("ours", "plain")
EASED = "eased"


def main() -> None:
    options = _arguments()
    torch.set_num_threads(1)
    loads = [os.getloadavg()[0]]
    trial = Trial(Run(options.out, _recipe(options), TerminalProgress()), options)
    rows = [row for engine in BARS for row in trial.rows(engine)]
    loads.append(os.getloadavg()[0])
    found = trial.facts() | {"load": loads, "rows": rows, "verdicts": verdicts(rows)}
    options.results.write_text(json.dumps(found, indent=1) + "\n")
    print(table(rows), "", *map(sentence, found["verdicts"]), *unanswered(rows), sep="\n")
    if max(loads) > 1.5:
        print(f"Other work was running (load {loads[0]:.1f} to {loads[1]:.1f}, of which 1 is ours): provisional.")


@dataclass(frozen=True)
class Entry:
    """One line of the table before it is measured; `bundle` None: there is nothing to measure."""

    label: str
    row: Row
    bundle: Path | None


@dataclass(frozen=True)
class Trial:
    """Our bundles, what the peers make, and what both are worth: each a step of `run`, done once."""

    run: Run
    options: argparse.Namespace

    def rows(self, engine: str) -> list[Row]:
        """Our fp32 and int8 first, then the peers of one engine."""
        entries = [*self._ours(engine), *self._peers(engine)]
        bundles = {entry.label: entry.bundle for entry in entries if entry.bundle}
        files = {label: (bundle / FILE).read_text() for label, bundle in bundles.items()}  # with their hashes
        settings = {"files": files, "rounds": self.options.rounds, "code": MEASURING.read_text()}
        work = partial(race, bundles, self.options.rounds)
        times = read_json(self._once(f"speed/{engine}", work, settings) / SPEED)
        return [self._measured(entry, times) if entry.bundle else entry.row for entry in entries]

    def facts(self) -> Row:
        """Everything that the numbers depend on."""
        workload = asdict(WORKLOAD) | {"rounds": self.options.rounds}
        counts = {"calibration_clips": len(self._calibration), "test_clips": len(self._clips)}
        facts = {"model": self.options.model, "corpus": self.run.recipe.corpus, **counts, **provenance()}
        return facts | {"isa": machine()["isa"], "threads": 1, "workload": workload, "environments": ENVIRONMENTS}

    def _ours(self, engine: str) -> Iterator[Entry]:
        for precision in PRECISIONS:
            row = {"engine": engine, "source": "ours", "name": f"edgeav {precision}", "is_ours": True, "error": None}
            yield Entry(f"{engine}-{precision}", row, self._bundle(engine, precision))

    def _bundle(self, engine: str, precision: Precision) -> Path:
        return self.run.once(self._steps.exports[engine, precision])

    def _peers(self, engine: str) -> Iterator[Entry]:
        for peer in (p for p in PEERS if p.engine == engine and p.method in self.options.peers):
            for source in self.options.sources:
                yield (entry := self._peer(peer, source))
                if entry.row["error"] and source == "ours":
                    yield self._peer(peer, EASED)

    def _peer(self, peer: Peer, source: str) -> Entry:
        label, settings = (
            f"{peer.method}-{source}",
            {"pins": ENVIRONMENTS[peer.environment], "code": SCRIPT.read_text()},
        )
        made = self._once(f"made/{label}", partial(self._quantize, peer, source), settings)
        row = {"engine": peer.engine, "source": source, "name": peer.says, "is_ours": False}
        row |= read_json(made / OUTCOME)
        return Entry(label, row, None if row["error"] else made / "bundle")

    def _measured(self, entry: Entry, times: Row) -> Row:
        engine, cpu_ms = entry.row["engine"], times["cpu_ms"]
        heard = self._heard(entry.label, entry.bundle)
        row = entry.row | read_json(heard / FACTS)
        row["error"] = row["error"] or times["errors"].get(entry.label)
        fp32, int8 = (f"{engine}-{precision}" for precision in PRECISIONS)
        if entry.label in cpu_ms:
            row["cpu_ms"] = cpu_ms[entry.label]
            row["over_fp32"] = times_faster(cpu_ms[fp32], row["cpu_ms"])
            row["ours_over_it"] = times_faster(row["cpu_ms"], cpu_ms[int8])
        if not row["error"]:
            floats, ours = (self._heard(f"{engine}-{p}", self._bundle(engine, p)) for p in PRECISIONS)
            row |= quality(self._clips, floats, ours, heard)
        return row

    def _heard(self, label: str, bundle: Path | None) -> Path:
        assert bundle
        settings = {"files": (bundle / FILE).read_text(), "clips": self.options.clips, "code": MEASURING.read_text()}
        return self._once(f"heard/{label}", lambda out: hear(bundle, self._model, self._clips, out), settings)

    def _quantize(self, peer: Peer, source: str, out: Path) -> None:
        options = self.options
        given = self._once("given", self._give, {"plain": "plain" in options.sources})
        try:
            python = python_of(peer.environment, options.environments, options.python)
        except Failed as failed:
            return record(out, f"cannot be installed: {failed}")
        clips = given / (f"clips-{EASED}" if source == EASED else "clips")
        quantize(peer, python, (given / f"{source}.onnx", clips), out)
        if read_json(out / OUTCOME)["error"] is None:
            bundle_of(out, self._bundle(peer.engine, "int8"), peer.method, out / "bundle")

    def _give(self, out: Path) -> None:
        """What every peer gets: the ONNX files, and the calibration clips."""
        exported = read_bundle(self._bundle("onnxruntime", "fp32")).model_path
        shutil.copy(exported, out / "ours.onnx")
        proto = onnx.load(exported)
        del proto.graph.value_info[:]
        onnx.save(proto, out / f"{EASED}.onnx")
        if "plain" in self.options.sources:
            write_onnx(self._model, out / "plain.onnx", OnnxRuntimeOptions().opset)
        longest = max(inputs.steps for inputs in self._calibration)
        for number, inputs in enumerate(self._calibration):
            self._save(inputs, out / "clips" / f"{number:04}.npz")
            self._save(padded(inputs, longest - inputs.steps), out / f"clips-{EASED}" / f"{number:04}.npz")

    def _save(self, inputs: Inputs, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **inputs.named(self._model.config.inputs.names))  # type: ignore[arg-type]

    def _once(self, name: str, work: Callable[[Path], object], settings: Row) -> Path:
        """The folder of a step that follows from our exports."""
        return self.run.once(Step(name, settings, work, tuple(self._steps.exports.values())))

    @cached_property
    def _steps(self) -> Steps:
        steps = steps_of(self.run)
        for stage in steps.stages:
            self.run.once(stage)
        return steps

    @cached_property
    def _clips(self) -> DecodedClips:
        """The first of the first test split."""
        split, recipe = self.run.corpus.tests[0], self.run.recipe
        part, clips = f"{split.name}-{self.options.clips}", split.utterances[: self.options.clips]
        return self.run.decoded(recipe.corpus, recipe.seed, part, clips)

    @cached_property
    def _calibration(self) -> CalibrationInputs:
        """That of our recipe."""
        plan = load_plan(self.run.folder / self._steps.stages[-1].name)
        assert plan.calibration
        return calibration_inputs(self.run, plan.calibration, self._model.config.inputs)

    @cached_property
    def _model(self) -> AVModel:
        return load_model(find_model(self.options.model)).cpu().eval()


def _recipe(options: argparse.Namespace) -> Recipe:
    """recipes/int8.yaml for the two engines that peers quantize for, without its own measurements."""
    changes = ["name=peers", "export=[onnxruntime, openvino]", "profile=[]"]
    changes += [f"model={options.model}", f"corpus={options.corpus}"]
    if options.calibration:
        changes += [f"stages=[{{quantize: {{format: int8, calibration: {options.calibration}}}}}]"]
    return Recipe.load("int8", changes)


def _arguments() -> argparse.Namespace:
    methods, folder = [peer.method for peer in PEERS], Path("runs/peers")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEMO, help="a shipped model's name or a model folder")
    parser.add_argument("--corpus", default="demo", help="demo, or the folder of a corpus")
    parser.add_argument("--peers", nargs="+", default=methods, choices=methods)
    parser.add_argument("--sources", nargs="+", default=["ours"], choices=SOURCES, help="the float32 file a peer gets")
    parser.add_argument("--clips", type=int, default=100, help="test clips")
    parser.add_argument("--rounds", type=int, default=7, help="in which all models take turns")
    parser.add_argument("--calibration", type=int, help="calibration clips of all; default: those of the recipe")
    parser.add_argument("--environments", type=Path, default=folder / "environments", help="where they are made")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="one that is there already")
    parser.add_argument("--out", type=Path, default=folder, help="where all files are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.python = dict(pair.split("=", 1) for pair in options.python)
    return options


if __name__ == "__main__":
    main()
