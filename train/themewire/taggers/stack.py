"""`stack`: `linear` and a tagger that reads sentences, their scores weighed against each other.

The weights come from out-of-fold scores (stacked generalisation; Wolpert 1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from themewire.taggers.base import UNLEARNED, Scan, Scores, Tagger
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
    """Which stories `linear` rules out alone, so that the other member need not read them."""

    cut: Scores
    """Shape (n_themes,): a story is read if any of its `linear` scores reaches the theme's cut."""
    floor: Scores
    """Shape (n_themes,): the other member's score of a story that it has not read."""

    def lets_through(self, scores: Scores) -> npt.NDArray[np.bool_]:
        """Which stories are read, shape (n_stories,), by `linear` scores (n_stories, n_themes)."""
        return np.asarray((scores >= self.cut).any(axis=1))


def learn_gate(
    linear: Scores, sentences: Scores, tags: npt.NDArray[np.bool_], kept: float, confidence: float
) -> Gate | None:
    """The highest cuts that keep a share of every theme's tags, with a confidence.

    For each theme, as many of its tags may fall under the cut as a binomial bound allows (the one-sided
    interval of Clopper and Pearson 1934); a story that another theme lets through keeps its tags all the
    same. None where a theme has too few tags to say.

    Args:
        linear: out-of-fold scores of `linear`, shape (n_articles, n_themes).
        sentences: those of the other member.
        tags: what both together give, by a decision that never saw the fold.
        kept: share of a theme's tags that stories let through must hold.
        confidence: that they hold it.
    """
    from scipy.stats import binom

    cuts = np.empty(tags.shape[1], dtype=np.float32)
    for column in range(tags.shape[1]):
        own = np.sort(linear[tags[:, column], column])
        missed = np.arange(len(own))
        allowed = binom.cdf(missed, len(own), 1 - kept) <= 1 - confidence
        if not allowed.any():
            return None
        cuts[column] = own[int(missed[allowed].max())]
    out = ~(linear >= cuts).any(axis=1)
    floor = sentences[out].mean(axis=0) if out.any() else sentences.min(axis=0)
    return Gate(cuts, floor.astype(np.float32))


@dataclass(frozen=True)
class StackScan:
    """The members' scans, weighed; stories that were ruled out have the gate's floor for a score."""

    combiner: Combiner
    linear: Scan
    sentences: Scan | None
    """Of the stories that were read, in their order; None where none was."""
    read: npt.NDArray[np.int64]
    """Their places among all."""
    floor: Scores

    @property
    def scores(self) -> Scores:
        """Shape (n_stories, n_themes)."""
        own = self.linear.scores
        other = np.broadcast_to(self.floor, own.shape).copy()
        if self.sentences is not None:
            other[self.read] = self.sentences.scores
        return self.combiner([own, other])

    def sentence_scores(self, row: int) -> Scores:
        """Shape (n_sentences, n_themes)."""
        own = self.linear.sentence_scores(row)
        place = int(np.searchsorted(self.read, row))
        if self.sentences is not None and place < len(self.read) and self.read[place] == row:
            return self.combiner([own, self.sentences.sentence_scores(place)])
        return self.combiner([own, np.broadcast_to(self.floor, own.shape)])


class StackTagger:
    """Members that each read the stories, and the weights of their scores."""

    kind = "stack"

    def __init__(
        self,
        members: Sequence[Tagger],
        combiner: Combiner,
        gate: Gate | None = None,
        cascade: bool = False,
    ) -> None:
        self.members = members
        self.combiner = combiner
        self.gate = gate
        self.cascade = cascade
        """Whether stories that the gate rules out are left to `linear` alone."""

    def scan(self, stories: Sequence[Story]) -> StackScan:
        """Read stories with `linear`, and those not ruled out with the other member too."""
        linear, sentences = self.members
        first = linear.scan(stories)
        read = np.arange(len(stories))
        floor = np.zeros(len(self.combiner.bias), dtype=np.float32)
        if self.cascade and self.gate is not None:
            read = np.flatnonzero(self.gate.lets_through(first.scores))
            floor = self.gate.floor
        chosen = [stories[place] for place in read.tolist()]
        second = sentences.scan(chosen) if chosen else None
        return StackScan(self.combiner, first, second, read, floor)

    def save(self, folder: Path) -> None:
        """Write each member into a folder of its own, and `stack.safetensors`."""
        for name, member in zip(MEMBERS, self.members, strict=True):
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
