"""Figures for multi-label tags, with the conventions they rest on.

- Precision, recall and F1 are 0 where their denominator is 0 (scikit-learn's zero_division=0).
- Macro averages run over every theme of the taxonomy, seen in the articles or not.
- Average precision needs a positive: a theme without one is left out of the mean, and has none.
- Exact match counts an article without themes and without tags as right.
- LRAP runs over the articles that have at least one theme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from themewire.calibration import Calibration, Probabilities, measure_calibration
from themewire.decisions import TagArray
from themewire.text import Story, evidence_order
from themewire.themes import LabelArray

RESAMPLES = 2000


@dataclass(frozen=True)
class Counts:
    """True positives, false positives and false negatives, shape (n_themes,) each."""

    tp: npt.NDArray[np.float64]
    fp: npt.NDArray[np.float64]
    fn: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ThemeFigures:
    """How one theme is tagged."""

    name: str
    precision: float
    recall: float
    f1: float
    average_precision: float | None
    support: int
    tagged: int
    calibration: Calibration


@dataclass(frozen=True)
class EvidenceFigures:
    """How often the sentences shown are the labelled ones."""

    pairs: int
    """Labelled (article, theme) pairs, tagged or not."""
    hit_at_1: float
    hit_at_3: float


@dataclass(frozen=True)
class Figures:
    """What a set of tags is worth against the labels."""

    articles: int
    micro_precision: float
    micro_recall: float
    micro_f1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    mean_average_precision: float | None
    exact_match: float
    lrap: float | None
    without_tag: float
    """Share of articles that get no tag."""
    micro_interval: tuple[float, float]
    macro_interval: tuple[float, float]
    """95 % bootstrap intervals of the two F1."""
    themes: tuple[ThemeFigures, ...]
    calibration: Calibration
    """The mean over themes."""
    evidence: EvidenceFigures | None = None

    def flat(self, prefix: str = "") -> dict[str, float]:
        """Every figure by its metric name, e.g. `macro_f1`, `theme/NAME/f1`, `interval/macro_low`."""
        named: dict[str, float | None] = {
            "articles": self.articles,
            "micro_precision": self.micro_precision,
            "micro_recall": self.micro_recall,
            "micro_f1": self.micro_f1,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
            "macro_f1": self.macro_f1,
            "mean_average_precision": self.mean_average_precision,
            "exact_match": self.exact_match,
            "lrap": self.lrap,
            "without_tag": self.without_tag,
            "interval/micro_low": self.micro_interval[0],
            "interval/micro_high": self.micro_interval[1],
            "interval/macro_low": self.macro_interval[0],
            "interval/macro_high": self.macro_interval[1],
        }
        named |= _calibration_figures(self.calibration)
        if self.evidence is not None:
            named["evidence/pairs"] = self.evidence.pairs
            named["evidence/hit_at_1"] = self.evidence.hit_at_1
            named["evidence/hit_at_3"] = self.evidence.hit_at_3
        for theme in self.themes:
            for key in ("precision", "recall", "f1", "average_precision", "support", "tagged"):
                named[f"theme/{theme.name}/{key}"] = getattr(theme, key)
            for name, value in _calibration_figures(theme.calibration).items():
                named[f"theme/{theme.name}/{name}"] = value
        return {prefix + key: float(value) for key, value in named.items() if value is not None}


def _calibration_figures(found: Calibration) -> dict[str, float | None]:
    return {
        "calibration/ece": found.ece,
        "calibration/ece_if_perfect": found.perfect,
        "calibration/ece_if_perfect_high": found.perfect_high,
        "calibration/brier": found.brier,
    }


def count(labels: LabelArray, tags: TagArray) -> Counts:
    """Hits and misses a theme; both arrays of shape (n_articles, n_themes)."""
    truth, given = labels.astype(bool), tags.astype(bool)
    return Counts(
        tp=(truth & given).sum(axis=0).astype(np.float64),
        fp=(~truth & given).sum(axis=0).astype(np.float64),
        fn=(truth & ~given).sum(axis=0).astype(np.float64),
    )


def ratio(
    above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """above / below, 0 where below is 0."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0)


def f1_of(counts: Counts) -> npt.NDArray[np.float64]:
    """F1 = 2 tp / (2 tp + fp + fn), 0 where nothing is labelled and nothing tagged."""
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def slice_f1(labels: LabelArray, tags: TagArray) -> tuple[float | None, float | None]:
    """Micro-F1, and macro-F1 over the themes that are labelled here; None without any."""
    counts = count(labels, tags)
    if not labels.any():
        return None, None
    total = Counts(*(np.array([side.sum()]) for side in (counts.tp, counts.fp, counts.fn)))
    return float(f1_of(total)[0]), float(f1_of(counts)[labels.any(axis=0)].mean())


def resampled_f1(
    labels: LabelArray,
    tags: TagArray,
    seed: int,
    groups: npt.NDArray[np.int64] | None = None,
    resamples: int = RESAMPLES,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Micro and macro F1, shape (resamples,) each, of articles drawn anew with replacement.

    Whole `groups`, shape (n_articles,), are drawn where given, for near-duplicates do not count
    twice. The same seed and groups give the same draws, so that two taggers can be compared pairwise.
    """
    truth, given = labels.astype(bool), tags.astype(bool)
    cells = np.stack([truth & given, ~truth & given, truth & ~given]).astype(np.float64)
    n = labels.shape[0]
    number = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_groups = int(number.max()) + 1 if n else 0
    sums = np.zeros((3, n_groups, labels.shape[1]))
    for part, cell in zip(sums, cells, strict=True):
        np.add.at(part, number, cell)
    rng = np.random.default_rng(seed)
    micro, macro = np.empty(resamples), np.empty(resamples)
    for i in range(resamples):
        weight = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
        tp, fp, fn = np.einsum("g,cgk->ck", weight, sums)
        macro[i] = f1_of(Counts(tp, fp, fn)).mean()
        total = Counts(*(np.array([side.sum()]) for side in (tp, fp, fn)))
        micro[i] = f1_of(total)[0]
    return micro, macro


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def average_precisions(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> list[float | None]:
    """Average precision of each theme's column; None for a theme that no article has."""
    from sklearn.metrics import average_precision_score

    return [
        float(average_precision_score(labels[:, k], scores[:, k])) if labels[:, k].any() else None
        for k in range(labels.shape[1])
    ]


def measure(
    labels: LabelArray,
    probabilities: Probabilities,
    tags: TagArray,
    names: Sequence[str],
    seed: int,
    groups: npt.NDArray[np.int64] | None = None,
    evidence: EvidenceFigures | None = None,
) -> Figures:
    """All figures of tags and probabilities against labels, each of shape (n_articles, n_themes)."""
    from sklearn.metrics import label_ranking_average_precision_score

    counts = count(labels, tags)
    precision, recall = (
        ratio(counts.tp, counts.tp + counts.fp),
        ratio(counts.tp, counts.tp + counts.fn),
    )
    f1 = f1_of(counts)
    total = Counts(*(np.array([side.sum()]) for side in (counts.tp, counts.fp, counts.fn)))
    ap = average_precisions(labels, probabilities)
    known = [value for value in ap if value is not None]
    themed = labels.any(axis=1)
    micro, macro = resampled_f1(labels, tags, seed, groups)
    calibrations, calibration = measure_calibration(labels, probabilities, seed)
    return Figures(
        articles=len(labels),
        micro_precision=float(ratio(total.tp, total.tp + total.fp)[0]),
        micro_recall=float(ratio(total.tp, total.tp + total.fn)[0]),
        micro_f1=float(f1_of(total)[0]),
        macro_precision=float(precision.mean()),
        macro_recall=float(recall.mean()),
        macro_f1=float(f1.mean()),
        mean_average_precision=float(np.mean(known)) if known else None,
        exact_match=float((labels.astype(bool) == tags).all(axis=1).mean()),
        lrap=float(label_ranking_average_precision_score(labels[themed], probabilities[themed]))
        if themed.any()
        else None,
        without_tag=float((~tags.any(axis=1)).mean()),
        micro_interval=interval(micro),
        macro_interval=interval(macro),
        themes=tuple(
            ThemeFigures(
                name=name,
                precision=float(precision[k]),
                recall=float(recall[k]),
                f1=float(f1[k]),
                average_precision=ap[k],
                support=int(labels[:, k].sum()),
                tagged=int(tags[:, k].sum()),
                calibration=calibrations[k],
            )
            for k, name in enumerate(names)
        ),
        calibration=calibration,
        evidence=evidence,
    )


def measure_evidence(
    stories: Sequence[Story],
    sentence_scores: Sequence[npt.NDArray[np.float32]],
    names: Sequence[str],
) -> EvidenceFigures | None:
    """Evidence hit@1 and hit@3 over all labelled (article, theme) pairs, tagged or not.

    `sentence_scores` holds an array of shape (n_sentences, n_themes) for each story. None where no
    evidence is labelled.
    """
    first = third = pairs = 0
    for story, scores in zip(stories, sentence_scores, strict=True):
        for column, name in enumerate(names):
            if not story.article.evidence.get(name):
                continue
            hits = story.evidence[name][evidence_order(story, scores[:, column])]
            pairs += 1
            first += bool(hits[:1].any())
            third += bool(hits[:3].any())
    return EvidenceFigures(pairs, first / pairs, third / pairs) if pairs else None
