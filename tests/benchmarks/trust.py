"""Do the figures hold what they promise: intervals, the promised recall, adapting, audit, suggestions.

python -m tests.benchmarks.trust coverage
python -m tests.benchmarks.trust recall [--on DATA/stories.jsonl]     (models/champion, 200 splits)
python -m tests.benchmarks.trust streams [--on DATA/stories.jsonl]    (models/champion, 5 and 50 % themed)
python -m tests.benchmarks.trust audit                                (5 % of the labels flipped, linear)
python -m tests.benchmarks.trust suggest                              (labelled by suggestion and by chance, linear)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from themewire.articles import Article, read_articles
from themewire.audit import audit
from themewire.bundle import Bundle, HeldOut, load_bundle
from themewire.checks import check_corpus
from themewire.config import Config, LinearConfig, ReviewConfig, load_config
from themewire.decisions import Decision, adapted, learn_decision
from themewire.metrics import count, f1_of, resampled_f1
from themewire.splits import make_folds
from themewire.suggest import suggest
from themewire.taggers.linear import fit_linear
from themewire.text import Story, stories
from themewire.themes import LabelArray

SPLITS = 200
SEED = 11


def macro_f1(labels: LabelArray, tags: npt.NDArray[np.bool_]) -> float:
    """Macro-F1 over all themes."""
    return float(f1_of(count(labels, tags)).mean())


def coverage() -> None:
    """How often the 95 % intervals hold the truth, in a world whose truth is known."""
    rng = np.random.default_rng(SEED)
    shares, right = np.array([0.2, 0.15, 0.1, 0.15]), np.array([0.85, 0.8, 0.75, 0.9])
    wrong = np.array([0.03, 0.04, 0.02, 0.05])

    def world(n: int) -> tuple[LabelArray, npt.NDArray[np.bool_]]:
        labels = rng.random((n, 4)) < shares
        tags = np.where(labels, rng.random((n, 4)) < right, rng.random((n, 4)) < wrong)
        return labels.astype(np.int8), tags

    expected = 2 * shares * right / (shares * right + (1 - shares) * wrong + shares)
    macro_truth = float(expected.mean())
    tp, fp = (shares * right).sum(), ((1 - shares) * wrong).sum()
    micro_truth = 2 * tp / (tp + fp + shares.sum())
    print("| stories | trials | micro-F1 covered | macro-F1 covered |\n| --- | --- | --- | --- |")
    for n in (150, 400, 2000):
        hits = np.zeros(2)
        trials = 500
        for trial in range(trials):
            micro, macro = resampled_f1(*world(n), trial, resamples=500)
            for kind, (values, truth) in enumerate(((micro, micro_truth), (macro, macro_truth))):
                low, high = np.percentile(values, [2.5, 97.5])
                hits[kind] += low <= truth <= high
        print(f"| {n} | {trials} | {hits[0] / trials:.3f} | {hits[1] / trials:.3f} |")


def story_recall(decision: Decision, held: HeldOut) -> float:
    """Share of a story's themes that tags and review show, mean over the stories with themes."""
    found = decision.found(decision.probabilities(held.scores))
    themed = held.labels.any(axis=1)
    hits = (found & held.labels.astype(bool)).sum(axis=1)[themed]
    return float((hits / held.labels.sum(axis=1)[themed]).mean())


def part(held: HeldOut, rows: npt.NDArray[np.int64]) -> HeldOut:
    """Some of the articles."""
    return replace(held, scores=held.scores[rows], labels=held.labels[rows])


def scored(bundle: Bundle, files: Sequence[Path]) -> HeldOut:
    """Labelled stories' scores by a bundle."""
    articles = read_articles(files, bundle.taxonomy).articles
    batch = stories(articles)
    labels = bundle.taxonomy.label_array([article.themes for article in articles])
    return HeldOut.of(batch, bundle.tagger.scan(batch).scores, labels)


def recall(bundle: Bundle, files: Sequence[Path]) -> None:
    """The promised recall over splits of the out-of-fold scores, and on other stories."""
    held, names = bundle.held_out(), bundle.taxonomy.names
    rng = np.random.default_rng(SEED)
    review = ReviewConfig(recall=0.95, confidence=0.9)
    seen = []
    for _ in range(SPLITS):
        order = rng.permutation(len(held.labels))
        half = len(order) // 2
        one, other = part(held, order[:half]), part(held, order[half:])
        config = bundle.config.decision
        decision = learn_decision(one.scores, one.labels, names, config, review)
        seen.append(story_recall(decision, other))
    kept = np.mean(np.array(seen) >= review.recall)
    print(
        f"{SPLITS} splits: recall {np.mean(seen):.3f} on average, {kept:.1%} at or above {review.recall}"
    )
    for name, there in [("data/test", scored(bundle, [Path("data/test")]))] + [
        (file.name, scored(bundle, [file])) for file in files
    ]:
        probabilities = bundle.decision.probabilities(there.scores)
        sent = bundle.decision.in_review(probabilities).mean()
        print(
            f"{name}: recall {story_recall(bundle.decision, there):.3f}, {sent:.1%} sent to review"
        )


def streams(bundle: Bundle, files: Sequence[Path]) -> None:
    """What adapting gains or loses where themes are rarer, and where they are as frequent."""
    held, names = bundle.held_out(), bundle.taxonomy.names
    rng = np.random.default_rng(SEED)
    print(
        "| stream | as learned | shares shifted, cuts kept | adapted |\n| --- | --- | --- | --- |"
    )
    for themed_share in (0.05, 0.5):
        rows = []
        for _ in range(20):
            order = rng.permutation(len(held.labels))
            half = len(order) // 2
            one, other = part(held, order[:half]), part(held, order[half:])
            decision = learn_decision(one.scores, one.labels, names, bundle.config.decision)
            themed = other.labels.any(axis=1)
            number = len(other.labels)
            drawn = rng.random(number) < themed_share
            chosen = np.where(
                drawn,
                rng.choice(np.flatnonzero(themed), number),
                rng.choice(np.flatnonzero(~themed), number),
            )
            rows.append(three_ways(decision, part(other, chosen)))
        _row(f"{themed_share:.0%} themed, out of fold", np.mean(rows, axis=0))
    for file in files:
        _row(file.name, three_ways(bundle.decision, scored(bundle, [file])))


def three_ways(decision: Decision, there: HeldOut) -> list[float]:
    """Macro-F1 as learned, with shifted probabilities alone, and adapted whole."""
    moved = adapted(decision, there.scores)
    kept = moved.model_copy(
        update={
            "themes": tuple(
                new.model_copy(update={"threshold": old.threshold})
                for new, old in zip(moved.themes, decision.themes, strict=True)
            )
        }
    )
    return [
        macro_f1(there.labels, way.tags(way.probabilities(there.scores)))
        for way in (decision, kept, moved)
    ]


def _row(name: str, values: Sequence[float] | npt.NDArray[np.float64]) -> None:
    print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


def flipped_labels(config: Config) -> None:
    """How many of 5 % flipped labels the audit ranks first."""
    checked = check_corpus(config)
    names = checked.corpus.taxonomy.names
    articles = checked.corpus.articles.articles
    rng = np.random.default_rng(SEED)
    cells = rng.choice(len(articles) * len(names), round(0.05 * len(articles)), replace=False)
    flips = {(articles[cell // len(names)].id, names[cell % len(names)]) for cell in cells.tolist()}
    changed = [_with_flips(article, names, flips) for article in articles]
    corpus = replace(checked.corpus, articles=replace(checked.corpus.articles, articles=changed))
    suspects = audit(config, replace(checked, corpus=corpus))
    print("| ranked first | flipped among them | precision | recall |\n| --- | --- | --- | --- |")
    for top in (len(flips) // 2, len(flips), 2 * len(flips)):
        found = sum((each.article.id, each.theme) in flips for each in suspects[:top])
        print(f"| {top} | {found} | {found / top:.3f} | {found / len(flips):.3f} |")


def _with_flips(article: Article, names: Sequence[str], flips: set[tuple[str, str]]) -> Article:
    own = {theme for ident, theme in flips if ident == article.id}
    if not own:
        return article
    themes = tuple(name for name in names if (name in article.themes) != (name in own))
    evidence = {theme: found for theme, found in article.evidence.items() if theme in themes}
    return article.model_copy(update={"themes": themes, "evidence": evidence})


def suggestions(config: Config) -> None:
    """Macro-F1 on a fold never labelled, against the number labelled: by suggestion and by chance."""
    checked = check_corpus(config)
    taxonomy, articles = checked.corpus.taxonomy, checked.corpus.articles.articles
    labels = taxonomy.label_array([article.themes for article in articles])
    table: dict[int, dict[str, list[float]]] = {}
    for seed in range(3):
        folds = make_folds(articles, labels, np.arange(len(articles)), 5, seed)
        pool, held = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)
        rng = np.random.default_rng(seed)
        start = rng.choice(pool, 150, replace=False).tolist()
        for way in ("suggested", "by chance"):
            known = list(start)
            while True:
                f1, decision, left, probabilities = _taught(
                    config, taxonomy.names, articles, labels, known, pool, held
                )
                table.setdefault(len(known), {}).setdefault(way, []).append(f1)
                if len(known) >= 1050:
                    break
                if way == "suggested":
                    picks = suggest([articles[i] for i in left], probabilities, decision, 150)
                    known += [left[pick.place] for pick in picks]
                else:
                    known += rng.choice(left, 150, replace=False).tolist()
    print("| labelled | suggested | by chance |\n| --- | --- | --- |")
    for number, ways in sorted(table.items()):
        print(f"| {number} | {np.mean(ways['suggested']):.3f} | {np.mean(ways['by chance']):.3f} |")


def _taught(
    config: Config,
    names: Sequence[str],
    articles: Sequence[Article],
    labels: LabelArray,
    known: Sequence[int],
    pool: npt.NDArray[np.int64],
    held: npt.NDArray[np.int64],
) -> tuple[float, Decision, list[int], npt.NDArray[np.float64]]:
    """Macro-F1 on the held articles, the decision, and what is left with its probabilities."""
    family = config.tagger
    assert isinstance(family, LinearConfig)
    batch = [Story(articles[i]) for i in known]
    truth = labels[list(known)]
    inner = make_folds([s.article for s in batch], truth, np.arange(len(batch)), 3, SEED)
    scores = np.zeros(truth.shape, dtype=np.float32)
    for fold in range(3):
        rows = np.flatnonzero(inner != fold).tolist()
        tagger = fit_linear([batch[i] for i in rows], truth[rows], names, family, SEED)
        out = np.flatnonzero(inner == fold).tolist()
        scores[out] = tagger.scan([batch[i] for i in out]).scores
    decision = learn_decision(scores, truth, names, config.decision)
    tagger = fit_linear(batch, truth, names, family, SEED)
    tags = decision.tags(
        decision.probabilities(tagger.scan([Story(articles[i]) for i in held.tolist()]).scores)
    )
    left = np.setdiff1d(pool, np.array(known)).tolist()
    unknown = decision.probabilities(tagger.scan([Story(articles[i]) for i in left]).scores)
    return macro_f1(labels[held], tags), decision, left, unknown


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["coverage", "recall", "streams", "audit", "suggest"])
    parser.add_argument(
        "--on", type=Path, action="append", default=[], help="labelled stories, JSONL"
    )
    parser.add_argument("--config", type=Path, default=Path("configs/linear.toml"))
    given = parser.parse_args()
    if given.what == "coverage":
        coverage()
    elif given.what in ("recall", "streams"):
        {"recall": recall, "streams": streams}[given.what](load_bundle("models/champion"), given.on)
    else:
        config = load_config(given.config)
        (flipped_labels if given.what == "audit" else suggestions)(config)


if __name__ == "__main__":
    main()
