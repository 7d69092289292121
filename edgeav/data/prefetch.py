"""Batches made while the model learns from the one before: the same batches in the same order, without the wait.

A thread is enough beside a CPU that needs a second for each step, and needs no shared memory, of which containers have
little. A GPU asks for batches faster than one interpreter makes them, so there they come from processes, by PyTorch's
DataLoader. `make(step)` must depend on the step alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import cv2
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")


@dataclass
class Prefetch(Generic[T]):
    """Iterates over `make(step)` for every step; an error in `make` is raised at its step.

    `processes`: how many make batches beside this one; with 0 a thread of this one does.
    """

    make: Callable[[int], T]
    steps: Sequence[int]
    processes: int = 0
    waited_s: float = 0.0  # for batches that were not ready, since the beginning

    def __iter__(self) -> Iterator[T]:
        batches = self._from_processes() if self.processes else self._from_a_thread()
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            self.waited_s += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def _from_a_thread(self) -> Iterator[T]:
        steps, pool = iter(self.steps), ThreadPoolExecutor(1)
        pending = deque(pool.submit(self.make, step) for step in islice(steps, 2))
        try:
            while pending:
                batch = pending.popleft().result()
                pending.extend(pool.submit(self.make, step) for step in islice(steps, 1))
                yield batch
        finally:  # also when training is stopped in the middle
            pool.shutdown(cancel_futures=True)

    def _from_processes(self) -> Iterator[T]:
        # fork: the mapped corpora are shared, not copied; the children do not touch the GPU
        yield from DataLoader(
            _Steps(self.make, self.steps),
            batch_size=None,
            num_workers=self.processes,
            multiprocessing_context="fork",
            worker_init_fn=_single_thread,
        )


@dataclass
class _Steps(Dataset[T]):
    """The steps as PyTorch wants to see them."""

    make: Callable[[int], T]
    steps: Sequence[int]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> T:
        return self.make(self.steps[index])


def _single_thread(_: int) -> None:
    cv2.setNumThreads(0)  # a forked child has OpenCV's threads only in name, and would wait for them
