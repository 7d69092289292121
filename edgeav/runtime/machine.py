"""What a measurement ran on, from Linux's /proc and /sys: a number without its machine is not a result."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from edgeav.errors import EdgeavError

# What decides which kernels an engine picks: the flag of the kernel (x86 `flags`, Arm `Features`) -> the usual name.
ISA_FLAGS = {
    "sse4_2": "sse4_2", "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c", "avx_vnni": "avx_vnni",
    "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512vl": "avx512vl", "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16", "avx512_fp16": "avx512_fp16", "amx_int8": "amx_int8", "amx_bf16": "amx_bf16",
    "neon": "neon", "asimd": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16",
    "sve": "sve", "sve2": "sve2",
}  # fmt: skip


def machine() -> dict[str, Any]:
    """arch, cpu, isa (the instruction sets that matter to engines), governor (None: not readable)."""
    facts = _cpuinfo()
    return {
        "arch": platform.machine(),
        "cpu": facts.get("model name")
        or facts.get("Model")
        or facts.get("Hardware")
        or platform.processor()
        or "unknown",
        "isa": isa(facts.get("flags") or facts.get("Features") or ""),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }


def isa(flags: str) -> list[str]:
    """The instruction sets that matter here, from the processor's flags, in the order of ISA_FLAGS."""
    present = set(flags.split())
    return list(dict.fromkeys(name for flag, name in ISA_FLAGS.items() if flag in present))


def rss_mb() -> float:
    """Resident memory of this process now, 10^6 bytes."""
    return _memory_mb("VmRSS")


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, 10^6 bytes.

    Not getrusage's ru_maxrss: on Linux that survives exec, so a child would report the memory of its parent.
    """
    return _memory_mb("VmHWM")


def _memory_mb(field: str) -> float:
    for line in (_read("/proc/self/status") or "").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6  # the file says kB and means KiB
    raise EdgeavError(f"/proc/self/status has no {field}: memory can only be measured on Linux")


def _cpuinfo() -> dict[str, str]:
    """/proc/cpuinfo as one dictionary; of several processors the last one's values."""
    pairs = (line.split(":", 1) for line in (_read("/proc/cpuinfo") or "").splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
