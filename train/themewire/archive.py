"""A whole archive, shard by shard: restartable, in bounded memory, on one machine or on a Ray cluster.

A shard is one input file; it is done when its output has its name. Nothing else is remembered, so a job
that was killed goes on where it was, and two jobs on the same folder at worst do a shard twice.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from themewire.articles import BrokenOff, Fault
from themewire.bundle import file_digest
from themewire.errors import InputRefused, ThemewireError, UsageError, missing_extra
from themewire.inputs import Reader, input_files
from themewire.outputs import ParquetWriter
from themewire.predict import Predictor, load_predictor, predict_stream
from themewire.storage import digest, exists, is_stored, opened, result_at

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
REJECTS = "rejects"


@dataclass(frozen=True)
class Shard:
    """One input file, and where its results go."""

    source: str
    target: str
    rejects: str


@dataclass(frozen=True)
class ShardDone:
    """What became of a shard."""

    source: str
    target: str
    stories: int
    refused: int
    sha256: str
    """Of the results; empty where the shard failed."""
    model: str
    failed: str = ""
    """Why it could not be done at all."""


def shards_of(inputs: Sequence[str], output: str) -> list[Shard]:
    """The shards of files, folders and patterns; a name stays the same from run to run.

    What lies under `output` is no shard, though the folder may stand inside an input.
    """
    shards, done = [], _whole_name(output)
    for source in [name for given in inputs for name in input_files(given)]:
        whole = _whole_name(source)
        if whole.startswith(f"{done}/"):
            continue
        # two folders may hold files of the same name
        where = hashlib.sha256(whole.encode()).hexdigest()[:8]
        name = f"{Path(source).name.split('.')[0]}-{where}"
        shards.append(Shard(source, f"{output}/{name}.parquet", f"{output}/{REJECTS}/{name}.jsonl"))
    return shards


def _whole_name(name: str) -> str:
    return name.rstrip("/") if is_stored(name) else str(Path(name).resolve())


def tag_shard(predictor: Predictor, shard: Shard, reader: Reader) -> ShardDone:
    """Tag one shard, through the same code as `predict`; its files appear whole or not at all."""
    stories = 0
    rejected: list[Fault] = []
    try:
        with result_at(shard.target) as draft:
            with ParquetWriter(draft, predictor.themes) as rows:
                found = predict_stream(predictor, reader.read([shard.source], io.BytesIO()))
                for item in found:
                    if isinstance(item, BrokenOff):
                        raise InputRefused(str(item))
                    if isinstance(item, Fault):
                        rejected.append(item)
                        continue
                    rows.write(*item)
                    stories += 1
            if rejected and not stories and not rejected[0].line:
                raise InputRefused(str(rejected[0]))
            if rejected:
                _write_rejects(shard.rejects, rejected)
            sha256 = file_digest(draft)
    except InputRefused as error:
        reason = str(error)
    except (ThemewireError, OSError, MemoryError):
        raise
    # storages' drivers have errors of their own; the other shards go on
    except Exception as error:  # noqa: BLE001
        reason = f"{shard.source}: {type(error).__name__}: {' '.join(str(error).split())}"
    else:
        return ShardDone(shard.source, shard.target, stories, len(rejected), sha256, predictor.name)
    logger.warning("%s", reason)
    return ShardDone(shard.source, shard.target, 0, 0, "", predictor.name, reason)


def _write_rejects(name: str, faults: Sequence[Fault]) -> None:
    with result_at(name) as draft:
        lines = [json.dumps(fault._asdict(), ensure_ascii=True) for fault in faults]
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")


def earlier(shard: Shard) -> ShardDone:
    """What an earlier run left of a shard that is done."""
    from pyarrow import parquet

    with opened(shard.target) as stream, parquet.ParquetFile(stream) as table:
        stories, model = table.metadata.num_rows, ""
        if stories:
            model = next(table.iter_batches(1, columns=["model"])).to_pylist()[0]["model"]
    refused = 0
    if exists(shard.rejects):
        with opened(shard.rejects) as lines:
            refused = sum(1 for _ in lines)
    return ShardDone(shard.source, shard.target, stories, refused, digest(shard.target), model)


class ShardTagger:
    """A model on a machine of its own: loaded once, then a shard at a time."""

    def __init__(self, model: str, reader: Reader) -> None:
        self.predictor = load_predictor(model)
        self.reader = reader

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A shard as a row, what became of it as a row."""
        return asdict(tag_shard(self.predictor, Shard(**row), self.reader))


def _local(
    model: str, shards: Sequence[Shard], reader: Reader, workers: int
) -> Iterator[ShardDone]:
    predictor = load_predictor(model)
    for shard in shards:
        yield tag_shard(predictor, shard, reader)


def _on_ray(
    model: str, shards: Sequence[Shard], reader: Reader, workers: int
) -> Iterator[ShardDone]:
    # what Ray tells of its own workings would drown the lines about shards
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_extra("ray", error) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if not ray.is_initialized():
        # RAY_ADDRESS, also ray://…, leads to a cluster; without it one is started on this machine
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    # a block a shard: a block is what an actor takes at a time
    rows = ray.data.from_items([asdict(s) for s in shards], override_num_blocks=len(shards))
    done = rows.map(
        ShardTagger,
        fn_constructor_args=(model, reader),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(shards))),
    )
    for row in done.iter_rows():
        yield ShardDone(**row)


ENGINES: dict[str, Callable[[str, Sequence[Shard], Reader, int], Iterator[ShardDone]]] = {
    "local": _local,
    "ray": _on_ray,
}


def tag_archive(
    inputs: Sequence[str],
    output: str,
    model: str,
    reader: Reader,
    engine: str = "local",
    workers: int = 1,
) -> Iterator[ShardDone]:
    """Tag every shard that is not done yet; yields what became of each, then writes the manifest.

    Args:
        inputs: files, folders or patterns, also in a storage (s3://…); each file is a shard.
        output: a folder, likewise, for the results, their rejects and `manifest.json`.
        model: as `--model` takes it; with Ray, it must be reachable from every machine.
        reader: how the inputs are read.
        engine: "local" or "ray".
        workers: models loaded at once, with Ray.

    Raises:
        UsageError: no model, or two shards with one name.
    """
    output = output.rstrip("/")
    shards = shards_of(inputs, output)
    if len({shard.target for shard in shards}) < len(shards):
        raise UsageError("two inputs are the same file; name each once")
    done: dict[str, ShardDone] = {}
    left = []
    for shard in shards:
        if exists(shard.target):
            done[shard.source] = earlier(shard)
            yield done[shard.source]
        else:
            left.append(shard)
    if left:
        for found in ENGINES[engine](model, left, reader, workers):
            done[found.source] = found
            yield found
    parts = [asdict(done[shard.source]) for shard in shards]
    manifest = {
        "shards": parts,
        "stories": sum(part["stories"] for part in parts),
        "refused": sum(part["refused"] for part in parts),
        "failed": sum(bool(part["failed"]) for part in parts),
        "models": sorted({part["model"] for part in parts if part["model"]}),
    }
    with result_at(f"{output}/{MANIFEST}") as draft:
        draft.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
