"""A training spread over several GPUs: a process for each, started by torch's own launcher."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from themewire.taggers.base import Listener


def processes() -> int:
    """How many processes a training takes: one for each GPU, one where there is none."""
    return max(1, torch.cuda.device_count())


def world_size() -> int:
    """How many processes train together with this one, itself included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Notes:
    """A listener in another process: what it hears is written down, and told later."""

    path: Path

    def __call__(self, figures: Mapping[str, float], step: int) -> None:
        """Write the figures of a step down."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([dict(figures), step]) + "\n")

    def tell(self, listener: Listener) -> None:
        """Tell a listener of this process all that was written down."""
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                listener(*json.loads(line))


def launch(
    count: int,
    work: Callable[..., None],
    job: tuple[object, ...],
    notes: Path,
    listener: Listener | None,
) -> None:
    """Run `work(*job, Notes(notes))` in `count` processes that know of each other, and wait for all.

    Function and job must be picklable; the listener is told all at the end.

    Raises:
        torch.distributed.elastic.multiprocessing.errors.ChildFailedError: one of them failed; the
            others are stopped.
    """
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        run_id=str(os.getpid()),
    )
    notes.unlink(missing_ok=True)
    heard = Notes(notes)
    elastic_launch(config, work)(*job, heard)
    if listener is not None:
        heard.tell(listener)
    notes.unlink(missing_ok=True)
