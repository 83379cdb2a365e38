"""Do probabilities mean what they say: reliability, expected calibration error, Brier score.

An expected calibration error is never 0, not even for a perfect model: labels are drawn, not spread
evenly. So each stands beside what a perfectly calibrated model would show at this number of stories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from themewire.themes import LabelArray

Probabilities = npt.NDArray[np.float64]

BINS = 10
SIMULATIONS = 300


@dataclass(frozen=True)
class Reliability:
    """Bins of equal mass of one theme's probabilities; arrays of shape (n_bins,)."""

    predicted: npt.NDArray[np.float64]
    """Mean probability in the bin."""
    observed: npt.NDArray[np.float64]
    """Share of its stories that have the theme."""
    stories: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """How far one theme's probabilities, or all themes' on average, are from what is seen."""

    ece: float
    """Expected calibration error on bins of equal mass (Naeini et al. 2015; equal mass: Nixon et al. 2019)."""
    perfect: float
    """The mean of the same figure, were every probability true: simulated."""
    perfect_high: float
    """Its 95th percentile there."""
    brier: float
    """Mean squared difference between probability and label."""

    @property
    def as_if_perfect(self) -> bool:
        """Whether the error lies inside the band that a perfectly calibrated model would show."""
        return self.ece <= self.perfect_high


def _bins(probabilities: npt.NDArray[np.float64]) -> list[npt.NDArray[np.int64]]:
    """Places in bins of equal mass, by rising probability."""
    order = np.argsort(probabilities, kind="stable")
    return [part for part in np.array_split(order, BINS) if len(part)]


def reliability(labels: npt.NDArray[Any], probabilities: npt.NDArray[np.float64]) -> Reliability:
    """Predicted against observed, for one theme; both arrays of shape (n_stories,)."""
    bins = _bins(probabilities)
    return Reliability(
        np.array([probabilities[part].mean() for part in bins]),
        np.array([labels[part].mean() for part in bins]),
        np.array([len(part) for part in bins]),
    )


def measure_calibration(
    labels: LabelArray, probabilities: Probabilities, seed: int
) -> tuple[list[Calibration], Calibration]:
    """Each theme's calibration and their mean; both arrays of shape (n_stories, n_themes).

    The mean's band is simulated as a mean, so it is narrower than the themes' own.
    """
    rng = np.random.default_rng(seed)
    themes, simulated = [], np.empty((SIMULATIONS, labels.shape[1]))
    for column in range(labels.shape[1]):
        given, truth = probabilities[:, column], labels[:, column].astype(np.float64)
        bins = _bins(given)
        order = np.concatenate(bins)
        starts = np.cumsum([0, *map(len, bins)])[:-1]
        sums = np.add.reduceat(given[order], starts)
        for draw in range(SIMULATIONS):
            drawn = (rng.random(len(given)) < given)[order]
            simulated[draw, column] = np.abs(
                np.add.reduceat(drawn, starts, dtype=float) - sums
            ).sum()
        simulated[:, column] /= len(given)
        ece = float(np.abs(np.add.reduceat(truth[order], starts) - sums).sum() / len(given))
        brier = float(np.mean((given - truth) ** 2))
        themes.append(_beside(ece, simulated[:, column], brier))
    return themes, _beside(
        float(np.mean([theme.ece for theme in themes])),
        simulated.mean(axis=1),
        float(np.mean([theme.brier for theme in themes])),
    )


def _beside(ece: float, simulated: npt.NDArray[np.float64], brier: float) -> Calibration:
    return Calibration(ece, float(simulated.mean()), float(np.percentile(simulated, 95)), brier)


def estimated_shares(
    probabilities: Probabilities, shares: npt.NDArray[np.float64], steps: int = 500
) -> npt.NDArray[np.float64]:
    """Theme shares in unlabelled stories, shape (n_themes,), by expectation maximisation.

    Saerens, Latinne and Decaestecker (2002): the learned shares are replaced step by step by the mean
    of the probabilities they lead to. It assumes that stories of a theme look alike here and where
    the model was taught, and that only their share differs.

    Args:
        probabilities: of the unlabelled stories, shape (n_stories, n_themes), as the model gives them.
        shares: of the themes where the model was taught, shape (n_themes,).
    """
    present = shares.copy()
    for _ in range(steps):
        up, down = (
            probabilities * (present / shares),
            (1 - probabilities) * ((1 - present) / (1 - shares)),
        )
        following = np.clip((up / (up + down)).mean(axis=0), 1e-4, 1 - 1e-4)
        if np.abs(following - present).max() < 1e-7:
            break
        present = following
    return np.asarray(present)


def expected_f1_threshold(probabilities: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """The cut with the highest expected F1 if every probability of one theme is true, shape (n_stories,).

    F1 is estimated as twice the expected hits over tags given plus expected positives (Lewis 1995).
    """
    ranked = np.sort(np.asarray(probabilities, dtype=np.float64))[::-1]
    hits = np.cumsum(ranked)
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + hits[-1])
    best = int(np.argmax(f1))
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)
