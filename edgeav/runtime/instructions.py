"""How many instructions a piece of work takes: Linux's own counter (perf_event_open(2)), for this process's user code.

A count is nearly free of what else the machine does: it finds a slower kernel that a busy machine's clock hides.
Virtual machines and emulators mostly have no counter; the reason is then told, never a guess.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from typing import Any

SYSCALLS = {"x86_64": 298, "aarch64": 241, "armv7l": 364}
PERF_TYPE_HARDWARE, COUNT_INSTRUCTIONS = 0, 1
ATTRIBUTE_BYTES = 112  # PERF_ATTR_SIZE_VER5
DISABLED_INHERIT_USER = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6  # disabled, inherit, exclude_kernel, exclude_hv
ENABLE, DISABLE = 0x2400, 0x2401  # PERF_EVENT_IOC_*


def counted(work: Callable[[], object], seconds: float) -> dict[str, Any]:
    """The count for a second of sound, of which `work` recognizes `seconds`; or {"no_instructions": why}."""
    found = count(work)
    if isinstance(found, str):
        return {"no_instructions": found}
    return {"instructions": {"per_second": found / seconds, "how": "perf_event_open, user code"}}


def count(work: Callable[[], object]) -> int | str:
    """Instructions of `work` in this thread and in threads that it starts, or why they cannot be counted."""
    number = SYSCALLS.get(platform.machine())
    if number is None:
        return f"no system call number of perf_event_open for {platform.machine()} is known"
    libc = ctypes.CDLL(None, use_errno=True)
    # struct perf_event_attr: type, size, config, period, sample_type, read_format, flags; the rest is zero.
    attributes = struct.pack(
        "<IIQQQQQ", PERF_TYPE_HARDWARE, ATTRIBUTE_BYTES, COUNT_INSTRUCTIONS, 0, 0, 0, DISABLED_INHERIT_USER
    )
    buffer = ctypes.create_string_buffer(attributes, ATTRIBUTE_BYTES)
    counter = libc.syscall(number, buffer, 0, -1, -1, 0)
    if counter < 0:
        return f"the kernel gives no instruction counter ({os.strerror(ctypes.get_errno())})"
    try:
        libc.ioctl(counter, ENABLE, 0)
        work()
        libc.ioctl(counter, DISABLE, 0)
        return int(struct.unpack("<Q", os.read(counter, 8))[0])
    finally:
        os.close(counter)
