"""Which labels look wrong, by what taggers say that have not learned from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from themewire.articles import Article
from themewire.checks import CheckResult
from themewire.config import Config
from themewire.crossfit import FoldDone, cross_validate
from themewire.decisions import cross_fitted
from themewire.text import evidence_order, stories


@dataclass(frozen=True)
class Suspect:
    """A label that looks wrong, or a theme that looks forgotten."""

    article: Article
    place: str
    """`FILE:LINE` of the record."""
    theme: str
    labelled: bool
    """Whether the record has the theme; if so, it looks wrong, else forgotten."""
    quality: float
    """How sure the label seems, from 0 to 1: the out-of-fold probability of what it says."""
    sentence: str
    """Labelled, it is the labelled sentence, which convinces too little; else the one that convinces most."""


def audit(
    config: Config, checked: CheckResult, on_fold: Callable[[FoldDone], None] | None = None
) -> list[Suspect]:
    """Every label, the ones that look most wrong first.

    Ranked by cleanlab's quality of each label (Northcutt et al. 2021; Thyagarajan et al. 2022) on
    calibrated out-of-fold probabilities, so no tagger has learned from the label it speaks about.
    """
    from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class

    corpus = checked.corpus
    articles, names = corpus.articles.articles, corpus.taxonomy.names
    batch = stories(articles)
    labels = corpus.taxonomy.label_array([article.themes for article in articles])
    found = cross_validate(config, batch, labels, checked.groups, names, on_fold)
    truth = labels[found.rows]
    probabilities, _ = cross_fitted(found.scores, truth, found.folds, names, config.decision)
    themes = [np.flatnonzero(row).tolist() for row in truth]
    quality = get_label_quality_scores_per_class(themes, probabilities)
    suspects = []
    for place in np.argsort(quality, axis=None, kind="stable"):
        scored, column = divmod(int(place), len(names))
        row, name = int(found.rows[scored]), names[column]
        article, sentences = articles[row], batch[row].sentences
        known = article.evidence.get(name, ())
        sentence = known[0] if known else ""
        if not known and sentences:
            best = evidence_order(batch[row], found.sentences[scored][:, column])[0]
            sentence = sentences[best].text
        suspects.append(
            Suspect(
                article,
                corpus.articles.places[row],
                name,
                bool(truth[scored, column]),
                float(quality[scored, column]),
                sentence,
            )
        )
    return suspects
