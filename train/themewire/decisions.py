"""From scores to probabilities, from probabilities to tags and to stories a person should read.

Learned on out-of-fold scores; applied with numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from themewire.config import DecisionConfig
from themewire.taggers.base import UNLEARNED, Scores
from themewire.themes import LabelArray

Probabilities = npt.NDArray[np.float64]
TagArray = npt.NDArray[np.bool_]

NEVER = 1.1
"""A threshold that no probability reaches."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Platt(_Part):
    """probability = 1 / (1 + exp(-(slope * score + offset))) (Platt 1999)."""

    kind: Literal["platt"] = "platt"
    slope: float
    offset: float

    def __call__(self, scores: npt.NDArray[Any]) -> Probabilities:
        logits = np.clip(self.slope * scores.astype(np.float64) + self.offset, -500, 500)
        return 1.0 / (1.0 + np.exp(-logits))


class Isotonic(_Part):
    """A rising line through (score, probability) knots, flat beyond the outermost."""

    kind: Literal["isotonic"] = "isotonic"
    scores: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, scores: npt.NDArray[Any]) -> Probabilities:
        return np.interp(scores.astype(np.float64), self.scores, self.values)


class Constant(_Part):
    """The share of a theme that could not be learned, whatever the score."""

    kind: Literal["constant"] = "constant"
    value: float

    def __call__(self, scores: npt.NDArray[Any]) -> Probabilities:
        return np.full(len(scores), self.value)


Calibrator = Annotated[Platt | Isotonic | Constant, Field(discriminator="kind")]


class ThemeDecision(_Part):
    """One theme's calibration and threshold."""

    theme: str
    calibrator: Calibrator
    threshold: float
    """Probability from which the tag is given; NEVER for a theme without examples."""
    own_threshold: bool
    """False where the floor holds: the theme keeps the threshold shared by all."""


class Decision(_Part):
    """The rule from probabilities to tags, and the band that asks for review."""

    themes: tuple[ThemeDecision, ...]
    shared_threshold: float
    band: float

    @property
    def thresholds(self) -> npt.NDArray[np.float64]:
        """Shape (n_themes,)."""
        return np.array([theme.threshold for theme in self.themes])

    def probabilities(self, scores: Scores) -> Probabilities:
        """Calibrated scores, shape (n_articles, n_themes) like the raw ones."""
        return np.column_stack(
            [theme.calibrator(scores[:, column]) for column, theme in enumerate(self.themes)]
        )

    def tags(self, probabilities: Probabilities) -> TagArray:
        """Which tags are given, shape (n_articles, n_themes)."""
        return probabilities >= self.thresholds

    def review_reasons(self, probabilities: Sequence[float] | Probabilities) -> list[str]:
        """Why a person should read a story with these probabilities, shape (n_themes,)."""
        return [
            f"near_threshold:{theme.theme}"
            for theme, probability in zip(self.themes, probabilities, strict=True)
            if abs(probability - theme.threshold) <= self.band
        ]


def learn_calibrator(scores: Scores, labels: LabelArray, kind: str) -> Calibrator:
    """Calibrate one theme from out-of-fold scores and labels, both of shape (n_articles,).

    A theme without both kinds of article, or whose scores do not rise with its label, gets its
    share among the articles as a constant.
    """
    positives = int(labels.sum())
    # the +1s keep a probability away from 0 and 1, as Platt's own targets do
    share = (positives + 1) / (len(labels) + 2)
    seen = scores > UNLEARNED
    if positives == 0 or positives == len(labels) or len(np.unique(labels[seen])) < 2:
        return Constant(value=share)
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(y_min=1 / (len(labels) + 2), y_max=1 - 1 / (len(labels) + 2))
        model.fit(scores[seen].astype(np.float64), labels[seen])
        return Isotonic(
            scores=tuple(model.X_thresholds_.tolist()), values=tuple(model.y_thresholds_.tolist())
        )
    from sklearn.linear_model import LogisticRegression

    centre, spread = float(scores[seen].mean()), float(scores[seen].std()) or 1.0
    fitted = LogisticRegression(C=1e4).fit(
        ((scores[seen] - centre) / spread)[:, None].astype(np.float64), labels[seen]
    )
    slope = float(fitted.coef_[0, 0]) / spread
    if slope <= 0:
        return Constant(value=share)
    return Platt(slope=slope, offset=float(fitted.intercept_[0]) - slope * centre)


def best_threshold(
    probabilities: Probabilities, labels: LabelArray | TagArray
) -> tuple[float, float]:
    """(threshold, F1): the cut with the highest F1, midway between the two probabilities around it.

    Both arrays of the same shape; a tie goes to the cut that tags more.
    """
    flat, truth = probabilities.ravel(), labels.ravel().astype(np.int64)
    order = np.argsort(-flat, kind="stable")
    flat, truth = flat[order], truth[order]
    hits = np.cumsum(truth)
    f1 = 2 * hits / (np.arange(1, len(flat) + 1) + max(1, truth.sum()))
    last_of_value = np.append(flat[1:] < flat[:-1], True)
    f1[~last_of_value] = -1.0
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    below = flat[best + 1] if best + 1 < len(flat) else 0.0
    return float((flat[best] + below) / 2), float(f1[best])


def learn_decision(
    scores: Scores,
    labels: LabelArray,
    names: Sequence[str],
    config: DecisionConfig,
    band: float,
) -> Decision:
    """Calibration and thresholds from out-of-fold scores, shape (n_articles, n_themes).

    The floor: a theme with fewer than `min_positives` articles, or whose best F1 stays under
    `min_f1`, keeps the shared threshold (the cut with the best micro-F1); tuned alone, a theme that
    was not learned ends with a cut near zero (Yang 2001, on thresholds for rare categories).
    """
    calibrators = [
        learn_calibrator(scores[:, column], labels[:, column], config.calibration)
        for column in range(len(names))
    ]
    probabilities = np.column_stack(
        [calibrate(scores[:, column]) for column, calibrate in enumerate(calibrators)]
    )
    shared, _ = best_threshold(probabilities, labels)
    themes = []
    for column, name in enumerate(names):
        positives = int(labels[:, column].sum())
        own, f1 = best_threshold(probabilities[:, column], labels[:, column])
        learned = not isinstance(calibrators[column], Constant)
        has_own = learned and positives >= config.min_positives and f1 >= config.min_f1
        threshold = own if has_own else (shared if learned else NEVER)
        themes.append(
            ThemeDecision(
                theme=name,
                calibrator=calibrators[column],
                threshold=threshold,
                own_threshold=has_own,
            )
        )
    return Decision(themes=tuple(themes), shared_threshold=shared, band=band)


def cross_fitted(
    scores: Scores,
    labels: LabelArray,
    folds: npt.NDArray[np.int64],
    names: Sequence[str],
    config: DecisionConfig,
) -> tuple[Probabilities, TagArray]:
    """Probabilities and tags of each article by a decision that never saw its fold.

    Both of shape (n_articles, n_themes).
    """
    probabilities = np.zeros(scores.shape, dtype=np.float64)
    tags = np.zeros(scores.shape, dtype=np.bool_)
    for fold in np.unique(folds):
        held = folds == fold
        decision = learn_decision(scores[~held], labels[~held], names, config, band=0.0)
        probabilities[held] = decision.probabilities(scores[held])
        tags[held] = decision.tags(probabilities[held])
    return probabilities, tags
