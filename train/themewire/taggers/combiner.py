"""Several taggers' scores as one, weighed by what each is worth for a theme.

The weights come from out-of-fold scores (stacked generalisation; Wolpert 1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from themewire.taggers.base import UNLEARNED, Scores
from themewire.themes import LabelArray


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


def save_combiner(combiner: Combiner, path: Path) -> None:
    """Write the weights as safetensors."""
    save_file({"weights": combiner.weights, "bias": combiner.bias}, path)


def load_combiner(path: Path) -> Combiner:
    """Read what `save_combiner` wrote."""
    arrays = load_file(path)
    return Combiner(arrays["weights"], arrays["bias"])
