"""How fast a model tags, beside what people wire by hand: ratios of one run.

python -m tests.benchmarks.speed encode STORIES [--model FOLDER]
python -m tests.benchmarks.speed cascade THEMED OTHERS [--model FOLDER] [--stories 1000]
python -m tests.benchmarks.speed start [--model FOLDER]
python -m tests.benchmarks.speed serve STORIES [--model FOLDER] [--port 5055]

STORIES, THEMED and OTHERS are JSONL files. What is compared takes turns, `--runs` times, each in a
process of its own, so that a busy minute falls on all alike; the figures are medians.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.compare import PEERS_FOLDER, peer_environment, timed
from themewire.articles import story_record
from themewire.config import EncoderSettings
from themewire.predict import load_predictor
from themewire.pretrained import find_source
from themewire.text import Story

SEED = 20
PEERS = ("setfit", "transformers<5", "torch==2.13.0")
"""SetFit brings sentence-transformers, scikit-learn and transformers along."""
STORY = (
    "Two frigates will be handed over to the navy in May, the ministry said on Tuesday.\n\n"
    "Instructors from the seller will spend a year with the crews.\n"
)
THEMED_SHARE = 0.05
LONG, SHORT = 200, 100
"""Words from which a story counts as long, and as a story at all."""
Record = dict[str, Any]


def read(path: Path, words: int) -> list[Record]:
    """The stories of a JSONL file that have at least so many words."""
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines if line.strip()]
    return [record for record in records if len((record.get("text") or "").split()) >= words]


def write(path: Path, records: Sequence[Record]) -> Path:
    """Stories as JSONL."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def in_turns(runs: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The median of each side's seconds, the sides taking turns."""
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, run in sides.items():
            seen[name].append(run())
    for name, values in seen.items():
        print(f"{name}: {', '.join(f'{value:.2f}' for value in values)} s", file=sys.stderr)
    return {name: statistics.median(values) for name, values in seen.items()}


def tag(model: str, stories: Path, out: Path) -> None:
    """In a process of its own: the seconds a loaded model takes for stories, and their tags.

    `bare_seconds` are those of tags and probabilities alone, `seconds` of all that `predict` gives.
    """
    predictor = load_predictor(model)
    records = read(stories, 0)
    predictor.predict(records[:8])
    start = time.perf_counter()
    found = predictor.predict(records)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    decision, batch = predictor.bundle.decision, [Story(story_record(each)) for each in records]
    decision.tags(decision.probabilities(predictor.bundle.tagger.scan(batch).scores))
    bare = time.perf_counter() - start
    out.write_text(
        json.dumps(
            {"seconds": seconds, "bare_seconds": bare, "themes": [each.themes for each in found]}
        )
    )


def tagging(model: str, stories: Path, out: Path) -> Callable[[], float]:
    """Runs `tag` in a process of its own; its seconds."""

    def run() -> float:
        command = [sys.executable, "-m", "tests.benchmarks.speed", "tag", str(stories)]
        timed([*command, "--model", model, "--out", str(out)])
        return float(json.loads(out.read_text())["seconds"])

    return run


def encode(given: argparse.Namespace, scratch: Path) -> None:
    """The whole model on long stories against `encode` of their sentences and a logistic head."""
    records = read(given.files[0], LONG)
    sentences = [s.text for record in records for s in Story(story_record(record)).sentences]
    (scratch / "sentences.json").write_text(json.dumps(sentences), encoding="utf-8")
    folder = find_source(EncoderSettings()).name
    peer, out = peer_environment(PEERS), scratch / "peer.json"

    def by_hand() -> float:
        runner = PEERS_FOLDER / "sentence_transformers_encode.py"
        timed(
            [str(peer.absolute()), str(runner), folder, str(scratch / "sentences.json"), str(out)]
        )
        return float(json.loads(out.read_text())["seconds"])

    stories = write(scratch / "stories.jsonl", records)
    full = str(scratch / "full")
    command = [sys.executable, "-m", "themewire", "decide", "--model", given.model]
    timed([*command, "--no-cascade", "--output", full])
    sides = {
        "sentence-transformers encode": by_hand,
        "themewire, every sentence read": tagging(full, stories, scratch / "full.json"),
        "themewire as it stands": tagging(given.model, stories, scratch / "own.json"),
    }
    found = in_turns(given.runs, sides)
    print(f"{len(records)} stories of {LONG} words and more, {len(sentences)} sentences")
    peer_seconds = found["sentence-transformers encode"]
    for name, seconds in found.items():
        rate = f"{len(records) / seconds:.1f} stories a second"
        print(f"{name}: {seconds:.2f} s, {rate}, {peer_seconds / seconds:.2f} times as fast")


def cascade(given: argparse.Namespace, scratch: Path) -> None:
    """The cascade against the same model without it, on a stream where one story in twenty has a theme."""
    rng = np.random.default_rng(SEED)
    themed = [record for record in read(given.files[0], SHORT) if record.get("themes")]
    others = read(given.files[1], SHORT)
    count = round(given.stories * THEMED_SHARE)
    chosen = [themed[i] for i in rng.permutation(len(themed))[:count]]
    chosen += [others[i] for i in rng.permutation(len(others))[: given.stories - len(chosen)]]
    stories = write(scratch / "stream.jsonl", [chosen[i] for i in rng.permutation(len(chosen))])
    models = {"full": str(scratch / "full"), "cascade": str(scratch / "cascade")}
    for name, flag in (("full", "--no-cascade"), ("cascade", "--cascade")):
        command = [sys.executable, "-m", "themewire", "decide", "--model", given.model, flag]
        timed([*command, "--output", models[name]])
    outs = {name: scratch / f"{name}.json" for name in models}
    found = in_turns(
        given.runs, {name: tagging(models[name], stories, outs[name]) for name in models}
    )
    for name, seconds in found.items():
        print(f"{name}: {seconds:.2f} s, {len(chosen) / seconds:.1f} stories a second")
    print(f"ratio {found['full'] / found['cascade']:.2f}")
    full, part = (json.loads(outs[name].read_text())["themes"] for name in models)
    pairs = [{(i, name) for i, names in enumerate(side) for name in names} for side in (full, part)]
    print(
        f"{len(pairs[0] & pairs[1])} of {len(pairs[0])} tags kept, {len(pairs[1] - pairs[0])} new"
    )


def start(given: argparse.Namespace, scratch: Path) -> None:
    """One story from a cold start to printed tags, whole processes."""
    story = scratch / "story.txt"
    story.write_text(STORY, encoding="utf-8")
    folder = find_source(EncoderSettings()).name
    python = str(peer_environment(PEERS).absolute())
    saved = scratch / "setfit"
    timed([python, str(PEERS_FOLDER / "setfit_save.py"), folder, str(saved)])
    themewire = [sys.executable, "-m", "themewire", "predict", str(story), "--model", given.model]
    commands = {
        "themewire": themewire,
        "SetFit": [python, str(PEERS_FOLDER / "setfit_tag.py"), str(saved), str(story)],
        "transformers pipeline": [
            python, str(PEERS_FOLDER / "pipeline_tag.py"), folder, str(story),
        ],
    }  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1"}
    sides = {name: lambda own=own: timed(own, offline).wall for name, own in commands.items()}
    found = in_turns(given.runs, sides)
    for name, seconds in found.items():
        print(f"{name}: {seconds:.2f} s, {seconds / found['themewire']:.1f} times themewire's")


def serve(given: argparse.Namespace, scratch: Path) -> None:
    """Latency and throughput of a registered model behind `mlflow models serve`."""
    records = read(given.files[0], SHORT)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    here = {
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"),
        # as in an activated environment: MLflow starts the server by its name
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    server = subprocess.Popen(
        [*command, "--model-uri", given.model, "--port", str(given.port)],
        env=os.environ | here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip

    def call(method: str, path: str, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", given.port)
        with closing(connection):
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse().read()
            return json.loads(answer) if body else None

    def ask(batch: Sequence[Record]) -> float:
        rows = [{"title": each.get("title") or "", "text": each["text"]} for each in batch]
        body = json.dumps({"dataframe_records": rows}).encode()
        before = time.perf_counter()
        found = call("POST", "/invocations", body)
        seconds = time.perf_counter() - before
        if len(found["predictions"]) != len(batch):
            raise SystemExit(f"{len(batch)} stories in, {len(found['predictions'])} out")
        return seconds

    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                call("GET", "/ping")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        ask(records[:4])
        single = [ask([record]) for record in records[:100]]
        low, high = np.percentile(single, [50, 95])
        print(
            f"one story a request: median {low * 1e3:.0f} ms, 95th percentile {high * 1e3:.0f} ms"
        )
        for size in (1, 32):
            batches = [records[i : i + size] for i in range(0, min(len(records), 320), size)]
            before = time.perf_counter()
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(ask, batches))
            rate = sum(map(len, batches)) / (time.perf_counter() - before)
            print(f"four clients, {size} stories a request: {rate:.1f} stories a second")
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["encode", "cascade", "start", "serve", "tag"])
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--model", default="models/champion")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--stories", type=int, default=1000)
    parser.add_argument("--port", type=int, default=5055)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.what == "tag":
        tag(given.model, given.files[0], given.out)
        return
    commands = {"encode": encode, "cascade": cascade, "start": start, "serve": serve}
    with tempfile.TemporaryDirectory(prefix="themewire-speed-") as scratch:
        commands[given.what](given, Path(scratch))


if __name__ == "__main__":
    main()
