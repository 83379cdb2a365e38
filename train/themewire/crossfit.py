"""Out-of-fold scores: what a tagger says of articles it has not learned from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from themewire.config import Config, EncoderConfig, FinetuneConfig, StackConfig
from themewire.evaluation import scan_all
from themewire.metrics import EvidenceFigures, measure_evidence
from themewire.splits import make_folds
from themewire.taggers import fit_member, members
from themewire.taggers.base import Listener, Scores, Tagger
from themewire.taggers.cascade import Bag, fit_bag
from themewire.taggers.combiner import Combiner, learn_combiner
from themewire.taggers.encoder import EncoderTagger, averaged
from themewire.text import Story
from themewire.themes import LabelArray


@dataclass(frozen=True)
class Part:
    """One family's out-of-fold scores."""

    scores: Scores
    """Shape (n_articles, n_themes)."""
    sentences: list[Scores]
    """Of each article's sentences, shape (n_sentences, n_themes) each."""


@dataclass(frozen=True)
class CrossValidation:
    """What taggers say of articles they have not learned from.

    That is all articles, or one held-out fold of them where a family is too slow for more.
    """

    rows: npt.NDArray[np.int64]
    """Places of the articles scored, shape (n_scored,)."""
    folds: npt.NDArray[np.int64]
    """Shape (n_scored,): a decision for one of these folds is learned on the others."""
    scores: Scores
    """Shape (n_scored, n_themes); a stack's are combined by weights that never saw the fold."""
    sentences: Sequence[Scores]
    """Of each scored article's sentences, shape (n_sentences, n_themes) each."""
    evidence: EvidenceFigures | None
    parts: Sequence[Part]
    """Each family's own."""
    sharpness: Scores
    """Shape (n_scored,): with which each article's sentences were pooled; 0 where they were not."""
    bags: Sequence[Scores]
    """The scores of a cascade's bag, of each scored article's sentences; empty where not asked for."""
    bag: Bag | None
    """As learned for the last fold."""
    combiner: Combiner | None
    """Learned on all scored articles; None where a single family is trained."""
    fitted: Sequence[Sequence[Tagger]]
    """The families as trained for each fold."""


@dataclass(frozen=True)
class FoldDone:
    """What is known once a fold was scored."""

    number: int
    """From 1."""
    seconds: float
    rows: npt.NDArray[np.int64]
    """Places of its articles."""
    scores: Sequence[Scores]
    """Each family's, shape (n_rows, n_themes)."""


def is_held_out(config: Config) -> bool:
    """Whether one fold is held out in place of cross-validation."""
    return any(isinstance(member, FinetuneConfig) for member in members(config.tagger))


def cross_validate(
    config: Config,
    batch: Sequence[Story],
    labels: LabelArray,
    groups: npt.NDArray[np.int64],
    names: Sequence[str],
    on_fold: Callable[[FoldDone], None] | None = None,
    listener: Listener | None = None,
    *,
    cascade: bool = False,
) -> CrossValidation:
    """Train on all folds but one, score that one, in turn; near-duplicate `groups` are never split.

    `on_fold` hears of each, the `listener` of the steps in between. For a stack, `cascade` asks for
    what its gate is learned from.
    """
    seed, articles = config.split.seed, [story.article for story in batch]
    folds = make_folds(articles, labels, groups, config.split.folds, seed, config.split.by)
    run = np.unique(folds)[:1] if is_held_out(config) else np.unique(folds)
    families = members(config.tagger)
    none = np.zeros((0, labels.shape[1]), np.float32)
    parts = [Part(np.zeros(labels.shape, np.float32), [none] * len(batch)) for _ in families]
    sharpness = np.zeros(len(batch), np.float32)
    bags, bag = [none] * len(batch), None
    fitted: list[list[Tagger]] = []
    for fold in run:
        start = time.perf_counter()
        held = folds == fold
        rows: list[int] = np.flatnonzero(held).tolist()
        others = [batch[i] for i in np.flatnonzero(~held).tolist()]
        fitted.append([])
        for family, part in zip(families, parts, strict=True):
            tagger = fit_member(family, others, labels[~held], names, seed, listener)
            part.scores[held], found = scan_all(tagger, [batch[i] for i in rows])
            for row, value in zip(rows, found, strict=True):
                part.sentences[row] = value
            if isinstance(tagger, EncoderTagger):
                sharpness[held] = tagger.head.sharpness
            fitted[-1].append(tagger)
        if cascade and isinstance(config.tagger, StackConfig) and isinstance(tagger, EncoderTagger):
            bag = fit_bag(others, labels[~held], names, config.tagger.sentences, seed)
            for row, value in zip(
                rows, bag.scan(tagger.encoder, [batch[i] for i in rows]), strict=True
            ):
                bags[row] = value
        if on_fold is not None:
            seconds = time.perf_counter() - start
            places, found_scores = np.flatnonzero(held), [part.scores[held] for part in parts]
            on_fold(FoldDone(int(fold) + 1, seconds, places, found_scores))
    scored = np.flatnonzero(np.isin(folds, run))
    chosen: list[int] = scored.tolist()
    parts = [Part(part.scores[scored], [part.sentences[i] for i in chosen]) for part in parts]
    inner = folds[scored]
    if len(run) == 1:
        inner = make_folds(
            [articles[i] for i in chosen], labels[scored], groups[scored], config.split.folds, seed
        )
    whole, combiner = parts[0], None
    if len(parts) > 1:
        whole = _combined(parts, labels[scored], inner)
        combiner = learn_combiner([part.scores for part in parts], labels[scored])
    evidence = measure_evidence([batch[i] for i in chosen], whole.sentences, names)
    return CrossValidation(
        scored, inner, whole.scores, whole.sentences, evidence, parts, sharpness[scored],
        [bags[i] for i in chosen] if bag else [], bag, combiner, fitted,
    )  # fmt: skip


def fit_finally(
    config: Config,
    found: CrossValidation,
    batch: Sequence[Story],
    labels: LabelArray,
    names: Sequence[str],
    listener: Listener | None = None,
) -> list[Tagger]:
    """The families as they will be used, taught by all stories.

    The heads of an `encoder` are those of the folds, averaged: together they have seen every story, no
    further fit is needed, and the mean hangs less on chance than any one of them (bagging; Breiman 1996).
    """
    final: list[Tagger] = []
    for place, family in enumerate(members(config.tagger)):
        of_folds = [taggers[place] for taggers in found.fitted]
        readers = [tagger for tagger in of_folds if isinstance(tagger, EncoderTagger)]
        if isinstance(family, EncoderConfig):
            mean = averaged([tagger.head for tagger in readers])
            final.append(EncoderTagger(readers[0].encoder, mean))
        else:
            final.append(fit_member(family, batch, labels, names, config.split.seed, listener))
    return final


def _combined(parts: Sequence[Part], labels: LabelArray, folds: npt.NDArray[np.int64]) -> Part:
    """The members' scores as one, each fold's by weights learned on the other folds."""
    scores = np.zeros(labels.shape, dtype=np.float32)
    sentences = list(parts[0].sentences)
    for fold in np.unique(folds):
        held = folds == fold
        combiner = learn_combiner([part.scores[~held] for part in parts], labels[~held])
        scores[held] = combiner([part.scores[held] for part in parts])
        for row in np.flatnonzero(held).tolist():
            sentences[row] = combiner([part.sentences[row] for part in parts])
    return Part(scores, sentences)
