"""One OpenVINO for the whole process, which leaves the process able to receive signals.

In 2026.4 the CPU plugin gives the thread that loads it another stack for signal handlers, and unmaps that
stack with the plugin: whoever drops the last reference, on whatever thread, in whatever order. Python handles every
signal on that stack once there is one (CPython's SA_ONSTACK), so the next Ctrl-C, timeout or ended child process kills
the process without a word. One plugin is therefore kept for ever, and the stack is put back after others were loaded.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from edgeav.errors import EdgeavError

if TYPE_CHECKING:
    from openvino import Core

VARIABLE = "EDGEAV_OPENVINO_DEVICE"


class SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@cache
def core() -> Core:
    """OpenVINO with its CPU plugin loaded; settings belong to each compiled model, not to it."""
    import openvino

    loaded = openvino.Core()
    with signal_stack_kept():
        loaded.get_property("CPU", "FULL_DEVICE_NAME")  # anything that needs the plugin
    return loaded


def place() -> str:
    """Where models run: on the CPU, or on what EDGEAV_OPENVINO_DEVICE names, such as GPU (device files set it).

    EdgeavError for one that OpenVINO does not find here: it is never replaced by another.
    """
    wanted = os.environ.get(VARIABLE) or "CPU"
    if wanted != "CPU" and wanted not in (found := core().available_devices):
        raise EdgeavError(
            f"{VARIABLE}: OpenVINO finds no {wanted} here, only {', '.join(found)}. A GPU needs its compute runtime"
            " (intel-opencl-icd) and a user in the group `render`"
        )
    return wanted


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Whatever is loaded inside (NNCF brings plugins of its own), this thread's signal stack stays the one it was."""
    before = signal_stack()
    try:
        yield
    finally:
        if before is not None:
            ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)


def signal_stack() -> SignalStack | None:
    """Of this thread; None where the plugin does not touch it."""
    if sys.platform != "linux":
        return None
    current = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(current))
    return current
