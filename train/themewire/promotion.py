"""The gate: is a challenger better than the champion, or as good and cheaper."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from themewire.articles import Article
from themewire.bundle import Bundle
from themewire.metrics import interval, resampled_f1
from themewire.predict import Predictor
from themewire.splits import near_groups
from themewire.text import Story

MARGIN = 0.01
"""Macro-F1 that a cheaper challenger may lose, at the lower end of the interval."""
SAVING = 0.20
"""Share of the CPU time an article that a cheaper challenger must save."""
TIMED_ARTICLES = 100
TIMED_PASSES = 3


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why, in one line."""

    promote: bool
    reason: str


def cpu_seconds(bundle: Bundle, articles: Sequence[Article]) -> float:
    """CPU seconds an article that predicting costs: the least of TIMED_PASSES passes."""
    predictor = Predictor(bundle, "timed")
    timed = list(articles[:TIMED_ARTICLES])
    predictor.predict_batch(timed[:1])
    passes = []
    for _ in range(TIMED_PASSES):
        start = time.process_time()
        predictor.predict_batch(timed)
        passes.append((time.process_time() - start) / len(timed))
    return min(passes)


def macro_f1_difference(
    challenger: Bundle, champion: Bundle, articles: Sequence[Article], seed: int, near: float
) -> tuple[float, float]:
    """The 95 % interval of challenger's macro-F1 minus champion's, over the same resampled articles."""
    stories = [Story(article) for article in articles]
    labels = champion.taxonomy.label_array([article.themes for article in articles])
    groups = near_groups([article.whole for article in articles], near)
    macro = []
    for bundle in (challenger, champion):
        decision = bundle.decision
        tags = decision.tags(decision.probabilities(bundle.tagger.scan(stories).scores))
        macro.append(resampled_f1(labels, tags, seed, groups)[1])
    return interval(np.subtract(*macro))


def judge(
    challenger: Bundle,
    champion: Bundle | None,
    articles: Sequence[Article],
    seed: int,
    near: float,
) -> Verdict:
    """Decide on the present test articles; `near` is the likeness of near-duplicates there."""
    if champion is None:
        return Verdict(True, "promoted: the first version")
    if champion.taxonomy != challenger.taxonomy:
        return Verdict(
            False, "not promoted: the champion has another taxonomy; they are never compared"
        )
    if not articles:
        return Verdict(False, "not promoted: no test articles to compare on")
    low, high = macro_f1_difference(challenger, champion, articles, seed, near)
    between = f"macro-F1 {low:+.3f} to {high:+.3f} against the champion (95 %)"
    if low > 0:
        return Verdict(True, f"promoted: better, {between}")
    if low <= -MARGIN:
        return Verdict(False, f"not promoted: not shown to be better, {between}")
    cost = cpu_seconds(challenger, articles) / cpu_seconds(champion, articles)
    if cost <= 1 - SAVING:
        return Verdict(True, f"promoted: as good, {between}, at {cost:.0%} of the CPU time")
    return Verdict(
        False,
        f"not promoted: neither shown to be better, {between}, nor cheaper ({cost:.0%} of the CPU time)",
    )
