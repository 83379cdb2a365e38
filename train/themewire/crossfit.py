"""Out-of-fold scores: what a tagger says of articles it has not learned from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from themewire.config import Config
from themewire.evaluation import labelled_sentence_scores
from themewire.metrics import EvidenceFigures, measure_evidence
from themewire.taggers import fit_member, members
from themewire.taggers.base import Scores
from themewire.taggers.stack import Combiner, learn_combiner
from themewire.text import Story
from themewire.themes import LabelArray


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold scores, how well their sentences hit the evidence, and a stack's weights."""

    scores: Scores
    """Shape (n_articles, n_themes); a stack's are combined by weights that never saw the fold."""
    evidence: EvidenceFigures | None
    combiner: Combiner | None
    """Learned on all folds; None where a single family is trained."""


@dataclass(frozen=True)
class _Part:
    """One member's out-of-fold scores, of articles and of their sentences where evidence is known."""

    scores: Scores
    sentences: list[Scores | None]


def cross_validate(
    config: Config,
    batch: Sequence[Story],
    labels: LabelArray,
    folds: npt.NDArray[np.int64],
    names: Sequence[str],
    on_fold: Callable[[int, float], None] | None = None,
) -> CrossValidation:
    """Train on all folds but one, score that one, in turn.

    `on_fold` hears of each: its number, from 1, and the seconds it took.
    """
    families = members(config.tagger)
    parts = [_Part(np.zeros(labels.shape, np.float32), [None] * len(batch)) for _ in families]
    for fold in np.unique(folds):
        start = time.perf_counter()
        held = folds == fold
        rows: list[int] = np.flatnonzero(held).tolist()
        others = [batch[i] for i in np.flatnonzero(~held).tolist()]
        for family, part in zip(families, parts, strict=True):
            tagger = fit_member(family, others, labels[~held], names, config.split.seed)
            part.scores[held], found = labelled_sentence_scores(tagger, [batch[i] for i in rows])
            for row, value in zip(rows, found, strict=True):
                part.sentences[row] = value
        if on_fold is not None:
            on_fold(int(fold) + 1, time.perf_counter() - start)
    if len(parts) == 1:
        (part,) = parts
        return CrossValidation(part.scores, measure_evidence(batch, part.sentences, names), None)
    return _combined(parts, batch, labels, folds, names)


def _combined(
    parts: Sequence[_Part],
    batch: Sequence[Story],
    labels: LabelArray,
    folds: npt.NDArray[np.int64],
    names: Sequence[str],
) -> CrossValidation:
    """The members' scores as one, each fold's by weights learned on the other folds."""
    scores = np.zeros(labels.shape, dtype=np.float32)
    sentences: list[Scores | None] = [None] * len(batch)
    for fold in np.unique(folds):
        held = folds == fold
        combiner = learn_combiner([part.scores[~held] for part in parts], labels[~held])
        scores[held] = combiner([part.scores[held] for part in parts])
        for row in np.flatnonzero(held).tolist():
            found = [value for part in parts if (value := part.sentences[row]) is not None]
            if found:
                sentences[row] = combiner(found)
    return CrossValidation(
        scores,
        measure_evidence(batch, sentences, names),
        learn_combiner([part.scores for part in parts], labels),
    )
