"""A progress bar on standard error for what takes long: how much is done, the rate, the time left."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

logger = logging.getLogger(__name__)


@contextmanager
def track(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar while the block runs; the block calls what it is given with each amount done.

    Where standard error is no terminal, one line at the start takes its place; for nothing to do,
    nothing is shown.
    """
    if total == 0:
        yield lambda done: None
        return
    if not sys.stderr.isatty():
        logger.info("%s: %d", what, total)
        yield lambda done: None
        return
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f}/s")
