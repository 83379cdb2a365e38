import numpy as np
import pytest

from themewire.config import DecisionConfig
from themewire.decisions import (
    NEVER,
    Constant,
    Decision,
    best_threshold,
    cross_fitted,
    learn_calibrator,
    learn_decision,
)
from themewire.taggers.base import UNLEARNED

CONFIG = DecisionConfig()


def drawn(n, seed=0):
    """Scores that are the log-odds of their own label."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(-1, 2, size=n).astype(np.float32)
    return scores, (rng.random(n) < 1 / (1 + np.exp(-scores))).astype(np.int8)


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_calibration_finds_true_probabilities(kind):
    scores, labels = drawn(4000)
    truth = 1 / (1 + np.exp(-scores.astype(float)))
    found = learn_calibrator(scores * 3 + 1, labels, kind)(scores * 3 + 1)
    assert np.abs(found - truth).mean() < 0.03
    assert (np.diff(found[np.argsort(scores)]) >= -1e-9).all()


def test_what_was_not_learned_is_a_constant():
    scores, labels = drawn(100)
    assert isinstance(learn_calibrator(scores, np.zeros(100, np.int8), "platt"), Constant)
    assert isinstance(learn_calibrator(-scores, labels, "platt"), Constant)


def test_best_threshold_by_hand():
    # cuts after 1, 2, 3, 4 articles: F1 2/3, 2/4, 4/5, 4/6
    threshold, f1 = best_threshold(np.array([0.9, 0.8, 0.6, 0.2]), np.array([1, 0, 1, 0], np.int8))
    assert [threshold, f1] == pytest.approx([0.4, 0.8])


def test_equal_probabilities_are_not_cut_apart():
    threshold, _ = best_threshold(np.array([0.5, 0.5, 0.1]), np.array([1, 0, 0], np.int8))
    assert threshold == pytest.approx(0.3)


def test_the_floor_keeps_the_shared_threshold():
    scores, labels = drawn(400)
    rare = np.zeros(400, np.int8)
    rare[np.argsort(-scores)[[0, 5, 9]]] = 1
    both = np.column_stack([scores, scores])
    decision = learn_decision(both, np.column_stack([labels, rare]), ["a", "b"], CONFIG, 0.1)
    assert [theme.own_threshold for theme in decision.themes] == [True, False]
    assert decision.themes[1].threshold == decision.shared_threshold


def test_a_theme_without_examples_is_never_tagged():
    scores, labels = drawn(200)
    both = np.column_stack([scores, np.full(200, UNLEARNED, np.float32)])
    table = np.column_stack([labels, np.zeros(200, np.int8)])
    decision = learn_decision(both, table, ["a", "b"], CONFIG, 0.1)
    assert decision.themes[1].threshold == NEVER
    assert not decision.tags(decision.probabilities(both))[:, 1].any()


def test_cross_fitted_never_sees_its_own_fold():
    scores, labels = drawn(300)
    folds = np.arange(300) % 3
    flipped = labels.copy()
    flipped[folds == 0] = 1 - flipped[folds == 0]
    column = scores[:, None]
    _, tags = cross_fitted(column, labels[:, None], folds, ["a"], CONFIG)
    _, others = cross_fitted(column, flipped[:, None], folds, ["a"], CONFIG)
    assert np.array_equal(tags[folds == 0], others[folds == 0])


def test_review_reasons_and_travel():
    scores, labels = drawn(300)
    decision = learn_decision(scores[:, None], labels[:, None], ["a"], CONFIG, band=0.1)
    at = decision.themes[0].threshold
    assert decision.review_reasons([at + 0.05]) == ["near_threshold:a"]
    assert decision.review_reasons([at + 0.2]) == []
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
