"""The families and their peers on one data set, in one go on one machine.

python -m tests.benchmarks.compare DATA [--configs FILE,FILE] [--peers scikit-learn,fasttext]

Rates are those of tags and, where a tool gives them, probabilities, from texts in memory.
DATA holds `train.jsonl`, `test.jsonl` and `themes.txt` (the names, in column order). Each peer runs
in an environment of its own, made on first use. The table goes to standard output, all figures to
`.themewire/benchmarks/NAME.json`. Everything is chosen on the training part, by each tool's own means.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score

from themewire.config import EncoderSettings
from themewire.metrics import interval, resampled_f1
from themewire.pretrained import find_source

PEERS_FOLDER = Path(__file__).parent / "peers"
HOME = Path(".themewire")
SEED = 20
HEADER = (
    "| tool | micro-F1 | macro-F1 | training, CPU s | stories a second | peak memory, MB | size, MB |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True)
class Peer:
    """Another tool: what its environment needs, and the runner that wires it."""

    runner: str
    packages: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)


# its thresholding needs a scipy before 1.14; the pin of torch is that of constraints.txt
LIBMULTILABEL = ("libmultilabel", "scipy<1.14", "torch==2.13.0")
PEERS = {
    "scikit-learn": Peer("scikit_learn.py", ("scikit-learn",)),
    "fasttext": Peer("fast_text.py", ("fasttext-numpy2",)),
    "libmultilabel 1vsrest": Peer("libmultilabel_linear.py", LIBMULTILABEL),
    "libmultilabel 1vsrest with pairs": Peer(
        "libmultilabel_linear.py", LIBMULTILABEL, {"PEER_NGRAMS": "2"}
    ),
    "libmultilabel cost-sensitive": Peer(
        "libmultilabel_linear.py", LIBMULTILABEL, {"PEER_METHOD": "cost_sensitive"}
    ),
    "transformers Trainer": Peer(
        "trainer_finetune.py", ("transformers", "accelerate", "torch==2.13.0")
    ),
}


class Cost(NamedTuple):
    """What a command took, its children included."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all cores."""
    peak: int
    """Bytes resident at most, of its largest process."""


def timed(command: list[str], env: dict[str, str] | None = None) -> Cost:
    """Run a command to its end.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | (env or {}), stdout=sys.stderr)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def peer_environment(packages: tuple[str, ...]) -> Path:
    """The Python of an environment with these packages."""
    name = "-".join(re.split("[<=]", package)[0] for package in packages)
    folder = HOME / "peers" / name
    if not (folder / "ok").exists():
        timed([sys.executable, "-m", "venv", str(folder)])
        timed([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *packages])
        (folder / "ok").touch()
    return folder / "bin/python"


def run_peer(peer: Peer, data: Path, scratch: Path) -> dict[str, Any]:
    """What a peer's runner found."""
    out = scratch / "peer.json"
    python = peer_environment(peer.packages)
    cost = timed(
        [str(python.absolute()), str(PEERS_FOLDER / peer.runner), str(data), str(out)],
        peer.settings | {"PEER_ENCODER": find_source(EncoderSettings()).name},
    )
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found | {"peak_bytes": cost.peak}


def run_family(base: Path, data: Path, scratch: Path) -> dict[str, Any]:
    """What a configuration of this project finds: trained by the command, tagged by the command."""
    bundle, names = scratch / base.stem, (data / "themes.txt").read_text(encoding="utf-8").split()
    config = scratch / f"{base.stem}.toml"
    config.write_text(
        f'extends = "{base.resolve()}"\n[data]\narticles = "{data / "train.jsonl"}"\ntest = ""\n'
        f"[taxonomy]\nnames = {json.dumps(names)}\n"
        '[checks]\nleaks = "warn"\n[tracking]\nexperiment = "benchmark"\nregistered_model = ""\n'
        f'[output]\nchampion = "{bundle}"\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "themewire"]
    training = timed([*command, "train", str(config)])
    out = scratch / "tags.json"
    tag = [sys.executable, "-m", "tests.benchmarks.speed", "tag", str(data / "test.jsonl")]
    tagging = timed([*tag, "--model", str(bundle), "--out", str(out)])
    found = json.loads(out.read_text(encoding="utf-8"))
    return {
        "tags": found["themes"],
        "train_seconds": training.wall,
        "train_cpu_seconds": training.cpu,
        "articles_a_second": len(found["themes"]) / found["bare_seconds"],
        "with_evidence_a_second": len(found["themes"]) / found["seconds"],
        "model_bytes": sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()),
        "peak_bytes": max(training.peak, tagging.peak),
    }


def tag_array(tags: list[list[str]], names: list[str]) -> npt.NDArray[np.int8]:
    """Lists of names as ones in a table of shape (n_stories, n_themes)."""
    place = {name: column for column, name in enumerate(names)}
    table = np.zeros((len(tags), len(names)), dtype=np.int8)
    for row, themes in enumerate(tags):
        table[row, [place[name] for name in themes]] = 1
    return table


def score(found: dict[str, Any], truth: list[list[str]], names: list[str]) -> dict[str, Any]:
    """Micro and macro F1 of tags, beside what was measured of the run."""
    arrays = [tag_array(side, names) for side in (truth, found["tags"])]
    kept = {key: value for key, value in found.items() if key != "tags"}
    return kept | {
        kind: float(f1_score(arrays[0], arrays[1], average=kind, zero_division=0))
        for kind in ("micro", "macro")
    }


def main() -> None:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--configs", default="configs/linear.toml,configs/stack.toml")
    parser.add_argument("--peers", default=",".join(PEERS))
    given = parser.parse_args()
    data = given.data.resolve()
    names = (data / "themes.txt").read_text(encoding="utf-8").split()
    lines = (data / "test.jsonl").read_text(encoding="utf-8").splitlines()
    truth = [list(json.loads(line).get("themes") or ()) for line in lines if line.strip()]
    results: dict[str, dict[str, Any]] = {}
    tags: dict[str, npt.NDArray[np.int8]] = {}
    print(HEADER, flush=True)

    def keep(name: str, found: dict[str, Any]) -> None:
        results[name] = row = score(found, truth, names)
        size = (row["model_bytes"] or 0) / 1e6
        # at once: the next tool may take an hour
        print(
            f"| {name} | {row['micro']:.3f} | {row['macro']:.3f} | {row['train_cpu_seconds']:.0f} "
            f"| {row['articles_a_second']:.0f} | {row['peak_bytes'] / 1e6:.0f} | {size:.0f} |",
            flush=True,
        )

    with tempfile.TemporaryDirectory(prefix="themewire-benchmark-") as scratch:
        for base in map(Path, filter(None, given.configs.split(","))):
            found = run_family(base, data, Path(scratch))
            keep(f"themewire {base.stem}", found)
            tags[base.stem] = tag_array(found["tags"], names)
        for name in filter(None, given.peers.split(",")):
            try:
                keep(name, run_peer(PEERS[name], data, Path(scratch)))
            except subprocess.CalledProcessError as error:
                print(f"{name}: failed, {error}", file=sys.stderr)
    out = HOME / "benchmarks" / f"{data.name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    first, *others = tags or [""]
    labels = tag_array(truth, names)
    for other in others:
        draws = [resampled_f1(labels, tags[name].astype(bool), SEED) for name in (other, first)]
        micro, macro = (interval(np.subtract(draws[0][kind], draws[1][kind])) for kind in (0, 1))
        print(
            f"{other} minus {first}, paired 95 %: micro-F1 {micro[0]:+.4f} to {micro[1]:+.4f}, "
            f"macro-F1 {macro[0]:+.4f} to {macro[1]:+.4f}"
        )


if __name__ == "__main__":
    main()
