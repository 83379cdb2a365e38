"""Have incoming stories drifted away from those the model was taught by?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from themewire.articles import Article
from themewire.bundle import Bundle
from themewire.errors import InputRefused
from themewire.text import Story, is_english, word_checksums

SIGNIFICANT = 0.01
"""p-value below which a difference is not put down to chance."""


@dataclass(frozen=True)
class Drift:
    """One thing about stories, where the model was taught and now."""

    what: str
    taught: float
    """Mean among the articles the decision was learned on."""
    now: float
    """Mean among the stories given."""
    distance: float
    """Kolmogorov-Smirnov distance of the two distributions, from 0 to 1."""
    chance: float
    """p-value: how often chance alone would show as much."""

    def beyond(self, level: float) -> bool:
        """Whether the distance is past a level, and not by chance."""
        return self.distance > level and self.chance < SIGNIFICANT


def drift(bundle: Bundle, articles: Iterable[Article]) -> list[Drift]:
    """Compare stories with those the model was taught by: probabilities, words, lengths, language.

    Raises:
        InputRefused: no stories.
    """
    known = bundle.held_out()
    scores = []
    words: list[float] = []
    unseen: list[float] = []
    foreign: list[float] = []
    source = iter(articles)
    while batch := list(islice(source, bundle.config.predict.batch)):
        scores.append(bundle.tagger.scan([Story(article) for article in batch]).scores)
        for article in batch:
            found = word_checksums(article.whole)
            words.append(len(found))
            unseen.append(float((~np.isin(found, known.vocabulary)).mean()) if len(found) else 0.0)
            foreign.append(float(not is_english(article.whole)))
    if not scores:
        raise InputRefused("no stories to compare")
    taught = bundle.decision.probabilities(known.scores)
    now = bundle.decision.probabilities(np.concatenate(scores))
    rows = [
        _compared(f"probability of {name}", taught[:, column], now[:, column])
        for column, name in enumerate(bundle.taxonomy.names)
    ]
    rows.append(_compared("words a story", known.words, words))
    rows.append(_compared("share of words never seen", known.unseen, unseen))
    # the articles were checked to be English when they were labelled
    rows.append(_compared("share of stories not in English", np.zeros(len(known.words)), foreign))
    return rows


def _compared(
    what: str, taught: npt.NDArray[Any], now: Sequence[float] | npt.NDArray[Any]
) -> Drift:
    from scipy.stats import ks_2samp

    found = ks_2samp(taught, now, method="asymp")
    return Drift(
        what,
        float(np.mean(taught)),
        float(np.mean(now)),
        float(found.statistic),
        float(found.pvalue),
    )
