"""Work shared out among the cores of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """The results of items, in order, a thread for each core; worth it where `work` leaves Python's lock."""
    if len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(min(cores(), len(items))) as pool:
        yield from pool.map(work, items)
