"""What a device says of itself while it works: board, temperature, throttling, clock rate, and whether it is emulated.

From Linux's /sys and /proc, and vcgencmd on a Raspberry Pi. Everything may be absent: None is "not readable here",
which a profile says; it is never a zero.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

SYS, PROC = Path("/sys"), Path("/proc")
# `vcgencmd get_throttled`, https://www.raspberrypi.com/documentation/computers/os.html: the low bits are "now".
THROTTLED_NOW = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
SAME_KERNEL = {("x86_64", "i686"), ("aarch64", "armv7l"), ("aarch64", "armv8l")}  # 32-bit programs on 64-bit kernels


def board() -> str | None:
    """ "Raspberry Pi 5 Model B Rev 1.0"; None on what has no device tree."""
    text = _read(PROC / "device-tree" / "model")
    return text.strip("\0 \n") if text else None


def emulated() -> bool:
    """Whether this process is run by an emulator of another architecture (qemu-user), whose times mean nothing.

    The kernel says what it was built for; the emulator answers uname with what it imitates.
    """
    said = platform.machine()
    kernel = (_read(PROC / "sys" / "kernel" / "arch") or "").strip()
    if kernel:
        return kernel != said and (kernel, said) not in SAME_KERNEL
    version = _read(PROC / "version") or ""  # before Linux 6.1; Debian names the compiler's architecture there
    return said != "x86_64" and "x86_64" in version


def temperature_c() -> float | None:
    """Of the warmest thermal zone, in degrees Celsius."""
    texts = (_read(path) for path in sorted(SYS.glob("class/thermal/thermal_zone*/temp")))
    found = [int(text) / 1000 for text in texts if text and text.strip().lstrip("-").isdigit()]
    return max(found, default=None)


def frequency_mhz() -> float | None:
    """Of the fastest core now."""
    texts = (_read(path) for path in sorted(SYS.glob("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")))
    return max((int(text) / 1000 for text in texts if text and text.strip().isdigit()), default=None)


def throttling() -> list[str] | None:
    """What holds a Raspberry Pi back now ([]: nothing); None where nobody can be asked."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    done = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=10)
    _, _, bits = done.stdout.strip().partition("throttled=")
    if not bits:
        return None
    return [name for bit, name in THROTTLED_NOW.items() if int(bits, 16) >> bit & 1]


def memory_mb() -> float | None:
    """Of the whole machine, 10^6 bytes."""
    for line in (_read(PROC / "meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None


def condition() -> dict[str, Any]:
    """temperature_c, frequency_mhz, throttling: as they are now."""
    return {"temperature_c": temperature_c(), "frequency_mhz": frequency_mhz(), "throttling": throttling()}


def device_facts() -> dict[str, Any]:
    """board, cores (that this process may use), memory_mb, emulated_here."""
    cores = len(os.sched_getaffinity(0))
    return {"board": board(), "cores": cores, "memory_mb": memory_mb(), "emulated_here": emulated()}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
