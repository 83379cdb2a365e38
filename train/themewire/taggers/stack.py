"""`stack`: `linear` and a tagger that reads sentences, their scores weighed against each other.

The weights come from out-of-fold scores (stacked generalisation; Wolpert 1992).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from themewire.taggers.base import UNLEARNED, Scan, Scores, Tagger
from themewire.taggers.encoder import EncoderTagger
from themewire.taggers.linear import LinearTagger
from themewire.text import Story
from themewire.themes import LabelArray

MEMBERS = ("linear", "sentences")
"""Folders of the members in a bundle, in the order of the weights."""
WEIGHTS = "stack.safetensors"


@dataclass(frozen=True)
class Combiner:
    """A weighted sum of the members' scores for each theme."""

    weights: Scores
    """Shape (n_members, n_themes)."""
    bias: Scores
    """Shape (n_themes,)."""

    def __call__(self, scores: Sequence[Scores]) -> Scores:
        """Members' scores of the same things, each (n_rows, n_themes), as one."""
        summed = sum(weight * part for weight, part in zip(self.weights, scores, strict=True))
        return np.asarray(summed + self.bias, dtype=np.float32)


def learn_combiner(scores: Sequence[Scores], labels: LabelArray) -> Combiner:
    """Weights from out-of-fold scores, each (n_articles, n_themes).

    Logistic regression, one a theme, on standardised scores; a member that would count against a
    theme is left out of it. A theme that a member has not learned keeps the members' mean.
    """
    from sklearn.linear_model import LogisticRegression

    members = len(scores)
    weights = np.full((members, labels.shape[1]), 1 / members, dtype=np.float32)
    bias = np.zeros(labels.shape[1], dtype=np.float32)
    for column in range(labels.shape[1]):
        columns = np.column_stack([part[:, column] for part in scores]).astype(np.float64)
        target = labels[:, column]
        seen = (columns > UNLEARNED).all(axis=1)
        if len(np.unique(target[seen])) < 2:
            continue
        mean, scale = columns[seen].mean(axis=0), columns[seen].std(axis=0) + 1e-9
        kept = np.arange(members)
        while len(kept):
            standard = (columns[seen][:, kept] - mean[kept]) / scale[kept]
            model = LogisticRegression(C=1.0).fit(standard, target[seen])
            if (model.coef_[0] > 0).all():
                weights[:, column] = 0.0
                weights[kept, column] = model.coef_[0] / scale[kept]
                bias[column] = model.intercept_[0] - weights[:, column] @ mean
                break
            kept = kept[model.coef_[0] > 0]
    return Combiner(weights, bias)


@dataclass(frozen=True)
class Gate:
    """Which sentences `linear` rules out alone, so that the other member need not read them."""

    cut: Scores
    """Shape (n_themes,): a sentence is read if any of its `linear` scores reaches the theme's cut."""
    floor: Scores
    """Shape (n_themes,): the other member's score of a sentence that it has not read."""

    def lets_through(self, scores: Scores) -> npt.NDArray[np.bool_]:
        """Which sentences are read, shape (n_sentences,), by their scores, (n_sentences, n_themes)."""
        return np.asarray((scores >= self.cut).any(axis=1))


class OutOfFold(Protocol):
    """What a member says of articles it has not learned from."""

    @property
    def scores(self) -> Scores:
        """Shape (n_articles, n_themes)."""

    @property
    def sentences(self) -> Sequence[Scores]:
        """Of each article's sentences, shape (n_sentences, n_themes) each."""


def learn_gate(
    linear: OutOfFold,
    sentences: OutOfFold,
    sharpness: Scores,
    combiner: Combiner,
    tags: Callable[[Scores], npt.NDArray[np.bool_]],
    kept: float,
    confidence: float,
) -> Gate | None:
    """The highest cuts with which a share of the tags is kept, with a confidence.

    A theme's cut may lose the same share of its tags as any other's, and all together as many as a
    binomial bound allows (the one-sided interval of Clopper and Pearson 1934): cuts that rise
    together are one family, tested in its order. None where there are too few tags to say.

    Args:
        linear: out of fold.
        sentences: the other member, out of fold.
        sharpness: with which that member pooled each article, shape (n_articles,).
        combiner: what weighs the two.
        tags: the decision, from combined scores to tags, both (n_rows, n_themes).
        kept: share of the tags of a full reading that must be kept.
        confidence: that it is.
    """
    from scipy.stats import binom

    floor = np.median(np.concatenate(sentences.sentences), axis=0).astype(np.float32)
    full = tags(combiner([linear.scores, sentences.scores]))
    total = int(full.sum())
    missed = np.arange(total)
    allowed = binom.cdf(missed, total, 1 - kept) <= 1 - confidence
    if not allowed.any():
        return None
    share = int(missed[allowed].max()) / total
    # without a tag nothing can be lost: such a theme asks for no reading
    cut = np.full(full.shape[1], np.inf, dtype=np.float32)
    for column in np.flatnonzero(full.any(axis=0)).tolist():
        reach = []
        for row in np.flatnonzero(full[:, column]).tolist():
            own, other = (part.sentences[row][:, column] for part in (linear, sentences))
            order = np.argsort(-own, kind="stable")
            # the score with the first k sentences read, the others at the floor; k from 0 to all
            pooled = _pooled_in_turn(other[order], float(floor[column]), float(sharpness[row]))
            trial = np.full((len(pooled), full.shape[1]), UNLEARNED, dtype=np.float32)
            trial[:, column] = (
                linear.scores[row, column] * combiner.weights[0, column]
                + pooled * combiner.weights[1, column]
                + combiner.bias[column]
            )
            lost = np.flatnonzero(~tags(trial)[:, column])
            needed = int(lost[-1]) + 1 if len(lost) else 0
            # where even all of them fall short by a rounding, all are needed
            last = order[min(needed, len(order)) - 1] if needed else None
            reach.append(np.inf if last is None else float(own[last]))
        cut[column] = np.sort(reach)[int(share * len(reach))]
    return Gate(cut, floor)


def _pooled_in_turn(scores: Scores, floor: float, sharpness: float) -> Scores:
    """The smooth maximum of sentences of which the first k are read, the rest at the floor; k from 0."""
    count = len(scores)
    read = np.logaddexp.accumulate(np.concatenate([[-np.inf], sharpness * scores]))
    with np.errstate(divide="ignore"):
        unread = np.log(count - np.arange(count + 1)) + sharpness * floor
    return np.asarray(np.logaddexp(read, unread) / sharpness, dtype=np.float32)


@dataclass(frozen=True)
class StackScan:
    """The members' scans, weighed."""

    combiner: Combiner
    parts: Sequence[Scan]

    @property
    def scores(self) -> Scores:
        """Shape (n_stories, n_themes)."""
        return self.combiner([part.scores for part in self.parts])

    def sentence_scores(self, rows: Sequence[int]) -> Sequence[Scores]:
        """Of these stories, shape (n_sentences, n_themes) each."""
        found = [part.sentence_scores(rows) for part in self.parts]
        return [self.combiner(own) for own in zip(*found, strict=True)]


class StackTagger:
    """`linear`, a member that reads sentences, and the weights of their scores."""

    kind = "stack"

    def __init__(
        self,
        linear: LinearTagger,
        sentences: EncoderTagger,
        combiner: Combiner,
        gate: Gate | None = None,
        cascade: bool = False,
    ) -> None:
        self.linear = linear
        self.sentences = sentences
        self.combiner = combiner
        self.gate = gate
        self.cascade = cascade
        """Whether sentences that the gate rules out are left to `linear` alone."""

    def scan(self, stories: Sequence[Story]) -> StackScan:
        """Read stories with `linear`, and the sentences not ruled out with the other member too."""
        first = self.linear.scan(stories)
        if not self.cascade or self.gate is None:
            return StackScan(self.combiner, [first, self.sentences.scan(stories)])
        read = [self.gate.lets_through(own) for own in first.sentence_scores(range(len(stories)))]
        second = self.sentences.scan_part(stories, read, self.gate.floor)
        return StackScan(self.combiner, [first, second])

    def save(self, folder: Path) -> None:
        """Write each member into a folder of its own, and `stack.safetensors`."""
        members: tuple[Tagger, Tagger] = (self.linear, self.sentences)
        for name, member in zip(MEMBERS, members, strict=True):
            (folder / name).mkdir()
            member.save(folder / name)
        arrays = {"weights": self.combiner.weights, "bias": self.combiner.bias}
        if self.gate is not None:
            arrays |= {"gate_cut": self.gate.cut, "gate_floor": self.gate.floor}
        save_file(arrays, folder / WEIGHTS)


def load_weights(folder: Path) -> tuple[Combiner, Gate | None]:
    """The weights and the gate that `StackTagger.save` wrote."""
    arrays = load_file(folder / WEIGHTS)
    gate = Gate(arrays["gate_cut"], arrays["gate_floor"]) if "gate_cut" in arrays else None
    return Combiner(arrays["weights"], arrays["bias"]), gate
