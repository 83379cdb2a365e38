"""What every peer's runner shares; runs in the peer's own environment, with nothing installed but the peer."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Texts = list[str]
Labels = list[list[str]]


def read(path: Path) -> tuple[Texts, Labels]:
    """Texts, title first, and their themes."""
    records = [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    texts = [f"{r.get('title') or ''}\n{r.get('text') or ''}".strip() for r in records]
    return texts, [list(r.get("themes") or ()) for r in records]


def run(
    fit: Callable[[Texts, Labels, Sequence[str]], Callable[[Texts], Labels]],
    size: Callable[[], int] | None = None,
) -> None:
    """`runner.py FOLDER OUT`: train on FOLDER/train.jsonl, tag FOLDER/test.jsonl, write OUT.

    `fit` takes texts, labels and names and returns what tags texts; `size` gives the model's bytes.
    """
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    names = (folder / "themes.txt").read_text(encoding="utf-8").split()
    texts, labels = read(folder / "train.jsonl")
    start, cpu = time.perf_counter(), time.process_time()
    tag = fit(texts, labels, names)
    trained, trained_cpu = time.perf_counter() - start, time.process_time() - cpu
    held, _ = read(folder / "test.jsonl")
    start = time.perf_counter()
    tags = tag(held)
    tagged = time.perf_counter() - start
    found = {
        "tags": tags,
        "train_seconds": trained,
        "train_cpu_seconds": trained_cpu,
        "articles_a_second": len(held) / tagged,
        "model_bytes": size() if size else None,
    }
    out.write_text(json.dumps(found), encoding="utf-8")
