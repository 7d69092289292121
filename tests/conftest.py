"""What all tests share: one thread per library, the command line as a process, the real data if any."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ssh_server

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # transformers is here for its model classes; nothing is downloaded

REPOSITORY = Path(__file__).parents[1]
GRID = REPOSITORY.parent / "shared" / "data" / "grid"
Result = subprocess.CompletedProcess[str]
# A device has one user at a time, and both emulated Pis are one system: one worker has all tests of each.
ALONE = ("emulated-pi", "test_adb.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With --dist loadgroup, groups by name: xdist 3.8 marks groups in ids of tests, which pytest 9.2 forbids."""
    from xdist.scheduler import LoadGroupScheduling

    class Scheduling(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((name for name in ALONE if name in nodeid), nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top level of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def grid() -> Path:
    """The folder of real talking-face clips; the test skips where it is absent."""
    if not GRID.is_dir():
        pytest.skip(f"needs the real clips in {GRID.relative_to(REPOSITORY.parent)}, which are not here")
    return GRID


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """demo_bundle(target, precision) -> that bundle of the demo model, exported once for all workers of a test run.

    EDGEAV_BUNDLES: a folder that keeps them for the next run. It does not notice that an exporter has changed.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    place = Path(os.environ.get("EDGEAV_BUNDLES", folder / "bundles"))

    def make(target: str, precision: str) -> Path:
        from edgeav.compress import export_one
        from edgeav.target import Target

        bundle = place / f"{target}-{precision}"
        place.mkdir(parents=True, exist_ok=True)
        with (place / f"{bundle.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not bundle.is_dir():
                export_one("av-fast-conformer-demo", Target.load(target), precision, "demo", bundle)  # type: ignore[arg-type]
        return bundle

    return make


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssh_server.Sshd]:
    """A real SSH server of this machine; the test skips where there is none."""
    server = ssh_server.start(tmp_path_factory.mktemp("sshd"))
    yield server
    server.process.terminate()
    server.process.wait()


@pytest.fixture
def edgeav(tmp_path: Path) -> Callable[..., Result]:
    """Run `edgeav ARGS` as a process in an empty folder, as a user does, without colours or a terminal."""

    def run(*args: str | Path, env: dict[str, str] | None = None) -> Result:
        paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": paths, "NO_COLOR": "1", "COLUMNS": "200", **(env or {})}
        command = [sys.executable, "-m", "edgeav", *map(str, args)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return run
