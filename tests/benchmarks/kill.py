"""A fine-tune killed three times and started again, beside one that is left alone.

python -m tests.benchmarks.kill ARTICLES FOLDER [--set tagger.epochs=2 ...]

ARTICLES is a file or folder as `data.articles` takes it. Both trainings run in FOLDER, each in a
working folder of its own, one after the other. The process is killed with SIGKILL between its first
two checkpoints, in the middle of writing the second, and after the third; prints both trainings'
figures and what MLflow says of each run.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import mlflow
from mlflow.entities import ViewType

from themewire.taggers.finetune import MARK

ROOT = Path(__file__).resolve().parents[2]
WAIT = 0.02
"""Seconds between two looks at the checkpoints."""
BETWEEN = 8.0
"""Seconds after a checkpoint's completion that count as between two of them."""


def start(folder: Path, command: Sequence[str], log: str) -> subprocess.Popen[bytes]:
    """The training as a process of its own, what it says in a file."""
    with (folder / log).open("wb") as file:
        return subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)


def checkpoints(folder: Path) -> list[tuple[int, bool]]:
    """(step, whether it is complete) of each checkpoint, the earliest first."""
    found = folder.glob(".themewire/finetune/*/checkpoint-*")
    return sorted((int(path.name.split("-")[1]), (path / MARK).is_file()) for path in found)


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool], delay: float) -> None:
    """SIGKILL, some seconds after a state is reached.

    Raises:
        RuntimeError: the training ended before.
    """
    while not ready():
        if process.poll() is not None:
            raise RuntimeError("the training ended before it could be killed")
        time.sleep(WAIT)
    time.sleep(delay)
    if process.poll() is not None:
        raise RuntimeError("the training ended before it could be killed")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def report(folder: Path) -> None:
    """What MLflow says of each run in a working folder."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [item.experiment_id for item in client.search_experiments()]
    runs = client.search_runs(experiments, run_view_type=ViewType.ALL, order_by=["start_time ASC"])
    for run in runs:
        figures = {
            name: round(value, 4)
            for name, value in run.data.metrics.items()
            if name in ("cv/macro_f1", "test/macro_f1", "cv/mean_ap", "test/mean_ap")
        }
        links = {
            name: run.data.tags[name][:8]
            for name in ("resumes", "resumed_by")
            if name in run.data.tags
        }
        print(folder.name, run.info.run_id[:8], run.info.run_name, run.info.status, figures, links)


def main(arguments: Sequence[str]) -> None:
    """Both trainings, one after the other."""
    parser = argparse.ArgumentParser(prog="kill")
    parser.add_argument("articles", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args(arguments)
    settings = [
        f"data.articles={args.articles.resolve()}",
        f"data.test={ROOT / 'data/test'}",
        f"taxonomy.file={ROOT / 'configs/themes.toml'}",
        "tagger.refit=false",
        *args.set,
    ]
    command = [str(Path(sys.executable).with_name("themewire")), "train",
               str(ROOT / "configs/finetune.toml")]  # fmt: skip
    for setting in settings:
        command += ["--set", setting]
    alone, killed = args.folder / "alone", args.folder / "killed"
    for folder in (alone, killed):
        folder.mkdir(parents=True)

    def steps(complete: bool) -> int:
        return sum(1 for _, whole in checkpoints(killed) if whole or not complete)

    def writing_second() -> bool:
        return any(not whole and step > first for step, whole in checkpoints(killed))

    began = time.perf_counter()
    if start(alone, command, "train.log").wait():
        raise RuntimeError(f"the training failed: {alone / 'train.log'}")
    print(f"alone: {time.perf_counter() - began:.0f} s", flush=True)
    kill_when(start(killed, command, "1.log"), lambda: steps(complete=True) >= 1, BETWEEN)
    first = checkpoints(killed)[0][0]
    print(f"killed once; left: {checkpoints(killed)}", flush=True)
    kill_when(start(killed, command, "2.log"), writing_second, 0.0)
    print(f"killed twice; left: {checkpoints(killed)}", flush=True)
    kill_when(
        start(killed, command, "3.log"),
        lambda: any(whole and step >= 3 * first for step, whole in checkpoints(killed)),
        BETWEEN / 2,
    )
    print(f"killed three times; left: {checkpoints(killed)}", flush=True)
    if start(killed, command, "4.log").wait():
        raise RuntimeError(f"the training failed: {killed / '4.log'}")
    report(alone)
    report(killed)


if __name__ == "__main__":
    main(sys.argv[1:])
