"""Which unlabelled stories would teach the most: those the model is unsure of, and unlike each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from themewire.articles import Article
from themewire.calibration import Probabilities
from themewire.decisions import Decision

BUCKETS = 2**16


@dataclass(frozen=True)
class Suggestion:
    """A story worth labelling."""

    place: int
    """Among the stories given."""
    uncertainty: float
    """1 where a probability stands on its threshold, falling to 0 with the distance in log-odds."""


def uncertainty(probabilities: Probabilities, decision: Decision) -> npt.NDArray[np.float64]:
    """Of each story, shape (n_stories,): that of its least certain theme, from 0 to 1."""
    given = np.clip(probabilities, 1e-6, 1 - 1e-6)
    cuts = np.clip(decision.thresholds, 1e-6, 1 - 1e-6)
    distance = np.abs(np.log(given / (1 - given)) - np.log(cuts / (1 - cuts)))
    return np.asarray(np.exp(-distance).max(axis=1))


def suggest(
    articles: Sequence[Article], probabilities: Probabilities, decision: Decision, number: int
) -> list[Suggestion]:
    """The stories to label next, the most telling first.

    Greedy: each pick has the highest uncertainty times its distance (1 - cosine of TF-IDF) from the
    picks before it, as maximal marginal relevance weighs them (Carbonell and Goldstein 1998).
    """
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    counts = HashingVectorizer(n_features=BUCKETS, alternate_sign=False, stop_words="english")
    vectors = TfidfTransformer().fit_transform(counts.transform([a.whole for a in articles]))
    unsure = uncertainty(probabilities, decision)
    nearest = np.zeros(len(articles))
    picks: list[Suggestion] = []
    left = np.ones(len(articles), dtype=np.bool_)
    for _ in range(min(number, len(articles))):
        place = int(np.argmax(np.where(left, unsure * (1 - nearest), -1.0)))
        picks.append(Suggestion(place, float(unsure[place])))
        left[place] = False
        likeness = np.asarray((vectors @ vectors[place].T).todense()).ravel()
        nearest = np.maximum(nearest, np.minimum(likeness, 1.0))
    return picks
