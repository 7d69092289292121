"""What works on this machine: versions, instruction sets, engines, extras, and what to type for the rest.

Each extra is really imported, in a process of its own: a broken native library then costs one line, not the
command.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgeav import __version__
from edgeav.errors import EdgeavError, needs
from edgeav.run import versions
from edgeav.runtime.machine import machine

# extra -> what it imports. `executorch.runtime` comes before the quantized kernels, else they fail (0x14).
EXTRAS: dict[str, tuple[str, ...]] = {
    "compress": (
        "torch", "torchao", "onnx", "onnxscript", "sentencepiece", "safetensors", "jiwer", "jinja2",
        "soundfile", "accelerate", "espeakng_loader",
    ),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino", "nncf"),
    "executorch": ("executorch.runtime", "executorch.kernels.quantized"),
    "video": ("av", "cv2"),
    "search": ("optuna",),
    "voices": ("ttspico",),
    "tensorboard": ("tensorboard",),
    "hama": ("hama",),
    "devices": ("asyncssh",),
}  # fmt: skip
ENGINES = ("onnxruntime", "openvino", "executorch")
DISTRIBUTIONS = (
    "numpy", "pydantic", "torch", "torchao", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf",
    "executorch", "av", "opencv-python-headless",
)  # fmt: skip
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "i8mm")
TIME_LIMIT_S = 180  # importing torch from a cold SD card takes a minute


def examine() -> dict[str, Any]:
    """Everything that `edgeav doctor` prints, as plain data. Takes a few seconds: it imports every extra."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        extras = dict(zip(EXTRAS, pool.map(check_extra, EXTRAS), strict=True))
    processor = cpu()
    return {
        "edgeav": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": processor,
        "int8_instructions": [flag for flag in INT8_FLAGS if flag in processor["isa"]],
        "versions": versions(DISTRIBUTIONS),
        "engines": {name: extras[name]["works"] for name in ENGINES},
        "extras": extras,
    }


def cpu() -> dict[str, Any]:
    """{cpu, arch, isa, governor, cores}: this machine's processor; `cores` are those that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return machine() | {"cores": cores}


def require(extras: Iterable[str]) -> None:
    """EdgeavError with every extra that is not installed and what to type. Imports nothing heavy."""
    missing = []
    for extra in dict.fromkeys(extras):
        tops = dict.fromkeys(module.split(".")[0] for module in EXTRAS[extra])
        absent = [top for top in tops if importlib.util.find_spec(top) is None]
        missing += [str(needs(extra, ", ".join(absent)))] if absent else []
    if missing:
        raise EdgeavError("\n".join(missing))


def extra_of(module: str) -> str | None:
    """The extra that brings an importable module."""
    top = module.split(".")[0]
    return next((extra for extra, names in EXTRAS.items() if top in {n.split(".")[0] for n in names}), None)


def check_extra(extra: str) -> dict[str, Any]:
    """Import all of one extra in a fresh process: {works, problems: {module: why}, fix: what to type}."""
    problems = dict(_problems(EXTRAS[extra]))
    fix = f"pip install 'edgeav[{extra}]'"
    if problems and not all(why == "not installed" for why in problems.values()):
        fix = f"pip install --force-reinstall 'edgeav[{extra}]'"
    return {"works": not problems, "problems": problems, "fix": fix if problems else None}


def _problems(modules: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(module, why) for each that cannot be imported. Those after a crash are tried in the next process."""
    while modules:
        code, output = _import_all(modules)
        lines = (line.split("\t", 1) for line in output.splitlines() if "\t" in line)
        answers = {module: why for module, why in lines if module in modules}  # imports may print, too
        yield from ((module, why) for module, why in answers.items() if why != "ok")
        modules = tuple(module for module in modules if module not in answers)
        if modules:
            yield modules[0], f"the process ended while importing it (exit code {code})"
            modules = modules[1:]


def _import_all(modules: tuple[str, ...]) -> tuple[int | str, str]:
    """(exit code, 'module<tab>ok or why' lines) of a process that imports the modules in order."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name); why = 'ok'\n"
        "    except ModuleNotFoundError as error:\n"
        "        own = (error.name or '').split('.')[0] == name.split('.')[0]\n"
        "        why = 'not installed' if own else f'needs {error.name}'\n"
        "    except BaseException as error:\n"
        "        why = ' '.join(f'{type(error).__name__}: {error}'.split())\n"
        "    print(f'{name}\\t{why}', flush=True)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, *modules]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, env=environment)
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        return f"none after {TIME_LIMIT_S} s", output.decode() if isinstance(output, bytes) else output
    return done.returncode, done.stdout
