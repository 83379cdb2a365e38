"""The gate: is a challenger better than the champion, or as good and cheaper."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from themewire.articles import Article
from themewire.bundle import Bundle
from themewire.evaluation import Measured
from themewire.metrics import interval, resampled_f1
from themewire.predict import Predictor
from themewire.splits import near_groups

MARGIN = 0.01
"""Macro-F1 that a cheaper challenger may lose, at the lower end of the interval."""
SAVING = 0.20
"""Share of the CPU time an article that a cheaper challenger must save."""
TIMED_ARTICLES = 40
TIMED_PASSES = 3


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and why, in one line."""

    promote: bool
    reason: str


def relative_cost(challenger: Bundle, champion: Bundle, articles: Sequence[Article]) -> float:
    """CPU time an article that predicting costs, challenger's over champion's.

    They take turns, so that a busy minute falls on both; each one's least pass counts.
    """
    predictors = [Predictor(bundle, "timed") for bundle in (challenger, champion)]
    timed = list(articles[:TIMED_ARTICLES])
    least = [np.inf, np.inf]
    for predictor in predictors:
        predictor.predict_batch(timed[:1])
    for _ in range(TIMED_PASSES):
        for side, predictor in enumerate(predictors):
            start = time.process_time()
            predictor.predict_batch(timed)
            least[side] = min(least[side], time.process_time() - start)
    return least[0] / least[1]


def judge(
    challenger: Bundle,
    champion: Bundle | None,
    test: Measured | None,
    seed: int,
    near: float,
) -> Verdict:
    """Decide on the present test articles: `test` is what the challenger says of them.

    `near` is the likeness of near-duplicates there.
    """
    if champion is None:
        return Verdict(True, "promoted: the first version")
    if champion.taxonomy != challenger.taxonomy:
        return Verdict(
            False, "not promoted: the champion has another taxonomy; they are never compared"
        )
    if test is None:
        return Verdict(False, "not promoted: no test articles to compare on")
    articles = [story.article for story in test.stories]
    groups = near_groups([article.whole for article in articles], near)
    decision = champion.decision
    tags = decision.tags(decision.probabilities(champion.tagger.scan(test.stories).scores))
    macro = [resampled_f1(test.labels, own, seed, groups)[1] for own in (test.tags, tags)]
    low, high = interval(np.subtract(*macro))
    between = f"macro-F1 {low:+.3f} to {high:+.3f} against the champion (95 %)"
    if low > 0:
        return Verdict(True, f"promoted: better, {between}")
    if low <= -MARGIN:
        return Verdict(False, f"not promoted: not shown to be better, {between}")
    cost = relative_cost(challenger, champion, articles)
    if cost <= 1 - SAVING:
        return Verdict(True, f"promoted: as good, {between}, at {cost:.0%} of the CPU time")
    return Verdict(
        False,
        f"not promoted: neither shown to be better, {between}, nor cheaper ({cost:.0%} of the CPU time)",
    )
