"""What a quarter, a half and all of the articles teach, measured on any labelled stories.

python tests/benchmarks/learning_curve.py DATA/real_news/dev.jsonl [--config configs/linear.toml]
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from themewire.articles import article_files, read_articles
from themewire.bundle import load_bundle
from themewire.config import load_config
from themewire.evaluation import measure_bundle
from themewire.training import train

SHARES = (0.25, 0.5, 1.0)


def main() -> None:
    """Train on each share, the smaller ones inside the larger, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stories", type=Path, help="labelled stories to measure on, JSONL")
    parser.add_argument("--config", type=Path, default=Path("configs/linear.toml"))
    given = parser.parse_args()
    config = load_config(given.config)
    stories = read_articles([given.stories], config.load_taxonomy()).articles
    files = article_files(config.data.articles)
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line.strip()]
    random.Random(config.split.seed).shuffle(lines)  # noqa: S311 - a sample, not a secret
    print("| articles | cross-validated macro-F1 | test | stories: macro-F1 (95 %) | mean AP |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="themewire-curve-") as scratch:
        for share in SHARES:
            part = Path(scratch) / "articles.jsonl"
            part.write_text("\n".join(lines[: int(share * len(lines))]) + "\n", encoding="utf-8")
            settings = [f"data.articles={part}", "tracking.experiment=learning-curve",
                        "tracking.registered_model=", f"output.champion={scratch}/bundle"]  # fmt: skip
            result = train(load_config(given.config, settings))
            bundle = load_bundle(f"{scratch}/bundle")
            found = measure_bundle(bundle, stories, config.split.seed).figures
            test = "–" if result.test is None else f"{result.test.figures.macro_f1:.3f}"
            low, high = found.macro_interval
            mean_ap = found.mean_average_precision or 0.0
            print(
                f"| {int(share * len(lines)):,} | {result.cv.figures.macro_f1:.3f} | {test} "
                f"| {found.macro_f1:.3f} ({low:.3f}–{high:.3f}) | {mean_ap:.3f} |"
            )


if __name__ == "__main__":
    main()
