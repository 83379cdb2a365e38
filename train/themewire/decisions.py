"""From scores to probabilities, from probabilities to tags and to stories a person should read.

Learned on out-of-fold scores; applied with numpy alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from themewire.calibration import Probabilities, estimated_shares, expected_f1_threshold
from themewire.config import DecisionConfig, ReviewConfig
from themewire.taggers.base import UNLEARNED, Scores
from themewire.themes import LabelArray

TagArray = npt.NDArray[np.bool_]

NEVER = 1.1
"""A threshold that no probability reaches."""
RISK_ROWS = 512
"""Articles whose risks are worked out at once, at every cut."""


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
    share: float
    """Of the articles the decision was learned on, how many have the theme."""
    shift: float = 0.0
    """Added to the log-odds of the calibrated score, where themes are rarer or more frequent."""
    possible: float = NEVER
    """Probability from which a story without the tag is sent to review."""

    def __call__(self, scores: npt.NDArray[Any]) -> Probabilities:
        """Probabilities of raw scores, shape (n_articles,) both."""
        probabilities = self.calibrator(scores)
        return shifted(probabilities, self.shift) if self.shift else probabilities


class Guarantee(_Part):
    """What the stories that are tagged or sent to review hold together."""

    recall: float
    """Of a story's themes, on average over the stories that have any, at least this share is found."""
    confidence: float
    """That this holds for stories like the ones it was learned on."""
    cut: float
    """Probability, as calibrated, from which a theme counts as found."""


class Decision(_Part):
    """The rule from probabilities to tags, and the band that asks for review."""

    themes: tuple[ThemeDecision, ...]
    shared_threshold: float
    band: float
    guarantee: Guarantee | None = None
    """None where no level was asked for, or none can be held."""

    @property
    def thresholds(self) -> npt.NDArray[np.float64]:
        """Shape (n_themes,)."""
        return np.array([theme.threshold for theme in self.themes])

    def probabilities(self, scores: Scores) -> Probabilities:
        """Calibrated scores, shape (n_articles, n_themes) like the raw ones."""
        return np.column_stack(
            [theme(scores[:, column]) for column, theme in enumerate(self.themes)]
        )

    def tags(self, probabilities: Probabilities) -> TagArray:
        """Which tags are given, shape (n_articles, n_themes)."""
        return probabilities >= self.thresholds

    def review_reasons(self, probabilities: Sequence[float] | Probabilities) -> list[str]:
        """Why a person should read a story with these probabilities, shape (n_themes,).

        `near_threshold:THEME`: a little higher or lower, and the tag would go or come.
        `possible:THEME`: not given, but needed to keep the recall that was asked for.
        """
        reasons = []
        for theme, probability in zip(self.themes, probabilities, strict=True):
            if abs(probability - theme.threshold) <= self.band:
                reasons.append(f"near_threshold:{theme.theme}")
            elif theme.possible <= probability < theme.threshold:
                reasons.append(f"possible:{theme.theme}")
        return reasons

    def found(self, probabilities: Probabilities) -> TagArray:
        """Themes tagged or shown to a person as possible, shape (n_articles, n_themes)."""
        possible = np.array([theme.possible for theme in self.themes])
        return np.asarray(probabilities >= np.minimum(self.thresholds, possible), dtype=np.bool_)

    def in_review(self, probabilities: Probabilities) -> npt.NDArray[np.bool_]:
        """Which stories a person should read, shape (n_articles,)."""
        return np.array([bool(self.review_reasons(row)) for row in probabilities], dtype=np.bool_)


def shifted(
    probabilities: npt.NDArray[np.float64] | float, shift: float
) -> npt.NDArray[np.float64]:
    """Probabilities with `shift` added to their log-odds; 0 and 1 stay."""
    given = np.asarray(probabilities, dtype=np.float64)
    up = given * np.exp(shift)
    return np.asarray(up / (up + 1 - given))


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
    review: ReviewConfig | None = None,
) -> Decision:
    """Calibration, thresholds and review from out-of-fold scores, shape (n_articles, n_themes).

    The floor: a theme with fewer than `min_positives` articles, or whose best F1 stays under
    `min_f1`, keeps the shared threshold (the cut with the best micro-F1); tuned alone, a theme that
    was not learned ends with a cut near zero (Yang 2001, on thresholds for rare categories).
    Without `review` no story is sent to a person.
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
                share=(positives + 1) / (len(labels) + 2),
            )
        )
    decision = Decision(themes=tuple(themes), shared_threshold=shared, band=0.0)
    if review is None:
        return decision
    decision = decision.model_copy(update={"band": review.band})
    return guarded(decision, scores, labels, review.recall, review.confidence)


def recall_cut(
    probabilities: Probabilities, labels: LabelArray, recall: float, confidence: float
) -> float:
    """The highest cut that keeps a story's expected recall at `recall`, with `confidence`.

    Risk-controlling prediction sets with a Bernstein bound (Bates et al. 2021), as MAPIE has them;
    they speak of the stories that have a theme. Both arrays of shape (n_articles, n_themes). 0 where
    too few such stories are there to hold the level.
    """
    themed = np.flatnonzero(labels.any(axis=1))
    if not len(themed):
        return 0.0
    held = (probabilities[themed], labels[themed], recall, confidence)
    # recall falls as the cut rises, so tenths show where to look at hundredths
    low = round(10 * _highest_cut(np.arange(11) / 10, *held))
    return _highest_cut(np.append(np.arange(10 * low, 10 * low + 10), 100) / 100, *held)


def _highest_cut(
    cuts: npt.NDArray[np.float64],
    probabilities: Probabilities,
    labels: LabelArray,
    recall: float,
    confidence: float,
) -> float:
    """The highest of rising cuts that holds the level; the last is 1, where nothing is found."""
    from mapie.risk_control import MultiLabelClassificationController

    controller = MultiLabelClassificationController(
        predict_function=np.asarray,
        risk="recall",
        method="rcps",
        rcps_bound="bernstein",
        target_level=recall,
        confidence_level=confidence,
        predict_params=cuts,
    )
    with warnings.catch_warnings():
        # it warns where no cut holds the level; the cut is 0 then, and the caller says so
        warnings.simplefilter("ignore")
        for start in range(0, len(labels), RISK_ROWS):
            rows = slice(start, start + RISK_ROWS)
            controller.compute_risks(probabilities[rows], labels[rows], _refit=start == 0)
        controller.compute_best_predict_param()
    return float(controller.best_predict_param[0])


def guarded(
    decision: Decision, scores: Scores, labels: LabelArray, recall: float, confidence: float
) -> Decision:
    """The decision with the review that holds a recall; a `recall` of 0 asks for none.

    Args:
        scores: out-of-fold scores, shape (n_articles, n_themes).
        labels: of the same articles.
    """
    cut = 0.0
    if recall > 0:
        calibrated = np.column_stack(
            [theme.calibrator(scores[:, column]) for column, theme in enumerate(decision.themes)]
        )
        cut = recall_cut(calibrated, labels, recall, confidence)
    guarantee = Guarantee(recall=recall, confidence=confidence, cut=cut) if cut > 0 else None
    themes = tuple(
        theme.model_copy(
            update={"possible": float(shifted(cut, theme.shift)) if guarantee else NEVER}
        )
        for theme in decision.themes
    )
    return decision.model_copy(update={"themes": themes, "guarantee": guarantee})


def with_threshold(decision: Decision, name: str, threshold: float) -> Decision:
    """The decision with one theme's threshold, a probability, as a person sets it."""
    themes = tuple(
        theme.model_copy(update={"threshold": threshold}) if theme.theme == name else theme
        for theme in decision.themes
    )
    return decision.model_copy(update={"themes": themes})


def adapted(decision: Decision, scores: Scores) -> Decision:
    """The decision for a stream of stories in which themes are rarer or more frequent.

    The shares are estimated on unlabelled stories' scores, shape (n_stories, n_themes), and shift
    the probabilities; thresholds become the cuts with the highest expected F1 there. A theme that
    keeps the shared threshold keeps it, moved by the same shift.
    """
    plain = [theme.model_copy(update={"shift": 0.0}) for theme in decision.themes]
    probabilities = np.column_stack([theme(scores[:, k]) for k, theme in enumerate(plain)])
    shares = np.array([theme.share for theme in plain])
    present = estimated_shares(probabilities, shares)
    shifts = np.log(present / (1 - present)) - np.log(shares / (1 - shares))
    cut = decision.guarantee.cut if decision.guarantee else None
    themes = []
    for column, theme in enumerate(plain):
        shift = float(shifts[column])
        moved = shifted(probabilities[:, column], shift)
        if theme.own_threshold:
            threshold = expected_f1_threshold(moved)
        elif theme.threshold < 1:
            threshold = float(shifted(decision.shared_threshold, shift))
        else:
            threshold = NEVER
        possible = NEVER if cut is None else float(shifted(cut, shift))
        themes.append(
            theme.model_copy(update={"shift": shift, "threshold": threshold, "possible": possible})
        )
    return decision.model_copy(update={"themes": tuple(themes)})


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
        decision = learn_decision(scores[~held], labels[~held], names, config)
        probabilities[held] = decision.probabilities(scores[held])
        tags[held] = decision.tags(probabilities[held])
    return probabilities, tags
