"""`stack`: `linear` and a tagger that reads sentences, their scores weighed against each other.

The weights come from out-of-fold scores (stacked generalisation; Wolpert 1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
class StackScan:
    """The members' scans, weighed."""

    combiner: Combiner
    parts: Sequence[Scan]

    @property
    def scores(self) -> Scores:
        """Shape (n_stories, n_themes)."""
        return self.combiner([part.scores for part in self.parts])

    def sentence_scores(self, row: int) -> Scores:
        """Shape (n_sentences, n_themes)."""
        return self.combiner([part.sentence_scores(row) for part in self.parts])


class StackTagger:
    """Members that each read the stories, and the weights of their scores."""

    kind = "stack"

    def __init__(self, members: Sequence[Tagger], combiner: Combiner) -> None:
        self.members = members
        self.combiner = combiner

    def scan(self, stories: Sequence[Story]) -> StackScan:
        """Read stories with every member."""
        return StackScan(self.combiner, [member.scan(stories) for member in self.members])

    def save(self, folder: Path) -> None:
        """Write each member into a folder of its own, and `stack.safetensors`."""
        for name, member in zip(MEMBERS, self.members, strict=True):
            (folder / name).mkdir()
            member.save(folder / name)
        arrays = {"weights": self.combiner.weights, "bias": self.combiner.bias}
        save_file(arrays, folder / WEIGHTS)


def load_combiner(folder: Path) -> Combiner:
    """The weights that `StackTagger.save` wrote."""
    return Combiner(**load_file(folder / WEIGHTS))
