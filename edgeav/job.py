"""A training job as plain data, and how its processes are started; edgeav/train.py is what runs in them."""

from __future__ import annotations

import ctypes
import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeav.data.disturbance import MODALITIES, Modality
from edgeav.distillation import Schooling, Terms
from edgeav.errors import EdgeavError
from edgeav.losses import Mixture

PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)


@dataclass(frozen=True)
class Serving:
    """What of one corpus goes into every batch of each process; see `edgeav.data.batch.Source`."""

    clips: str  # folder of decoded clips
    per_batch: int
    splice: float = 0.0
    leave_out: tuple[str, ...] = ()
    varied: bool = False
    trim: float = 0.0


@dataclass(frozen=True)
class Job:
    """Everything a training process needs to know; lies in `folder`/job.json."""

    folder: str  # checkpoints, metrics and the result
    model: str  # the folder of the model to begin with
    sources: list[Serving]
    valid: dict[str, str]  # name -> folder of decoded clips
    acoustics: str  # folder of noise and rooms
    noise: dict[str, Any]  # a Disturbance
    longest_s: float  # of a clip that is trained on
    steps: int
    learning_rate: float
    weight_decay: float
    warmup: int
    flat: float  # the share of steps at full rate, before the cosine
    seed: int
    processes: int
    checkpoint_every: int
    inter_ctc_weight: float = Mixture.inter_ctc
    attention_weight: float = Mixture.attention
    fade: float = 0.85  # of the steps: then the losses on frames have faded out
    accumulate: int = 1  # batches of each process in an update
    precision: Literal["bf16", "fp32"] = "bf16"
    optimizer: Literal["adamw", "muon"] = "adamw"
    frozen_norms: bool = False  # batch norms keep the statistics that they have
    average_last: int = 0  # checkpoints in the mean that is the result; 0: the moving average
    modalities: dict[Modality, float] = field(default_factory=lambda: dict(MODALITIES))
    lip_faults: float = 0.0  # share of the clips with sound whose lips are faulty
    log_every: int = 50
    loaders: int = 0  # processes that make batches for each training process; 0: a thread of it does
    school: Schooling | None = None  # None: no teacher
    range_learning_rate: float = 0.0  # above 0: train on the grids of quantization.json, its ranges so

    @property
    def rounded(self) -> bool:
        """Whether the model computes on quantized grids meanwhile."""
        return self.range_learning_rate > 0

    @classmethod
    def read(cls, path: Path) -> Job:
        """What `launch` wrote."""
        job = json.loads(path.read_text())
        job["sources"] = [Serving(**s | {"leave_out": tuple(s["leave_out"])}) for s in job["sources"]]
        if job.get("school"):
            terms = job["school"]["terms"]
            terms["match"] = tuple((ours, theirs) for ours, theirs in terms["match"])
            posteriors = tuple(job["school"]["posteriors"])
            job["school"] = Schooling(**job["school"] | {"terms": Terms(**terms), "posteriors": posteriors})
        return cls(**job)


def launch(job: Job) -> Path:
    """Run the job in its own processes, one thread each, and return the folder of the trained model.

    They end when this process does. EdgeavError where another one trains the same, and where the training fails.
    """
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.processes}"]
    command = [sys.executable, *launcher, "-m", "edgeav.train", str(folder / "job.json")]
    with _alone(folder) as lock:
        (folder / "job.json").write_text(json.dumps(asdict(job), indent=1))
        done = subprocess.run(command, pass_fds=[lock], preexec_fn=_ends_with_parent())
    if done.returncode:
        raise EdgeavError(
            f"training stopped with exit code {done.returncode}; its last words stand above. Run it again to resume"
        )
    return folder / "trained"


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """The open file whose lock says that somebody trains in `folder`; children that have it too keep the lock."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EdgeavError(
                f"{folder}: another process trains this at the moment (fuser {folder}/lock names it)."
                " Wait for it, or end it and run this again"
            ) from None
        yield file.fileno()


def _ends_with_parent() -> Callable[[], object] | None:
    """For a child to call before it becomes a program: it gets SIGTERM when its parent ends, however that ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec little is allowed
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
