import numpy as np
import pytest

from themewire.config import DecisionConfig, ReviewConfig
from themewire.decisions import (
    NEVER,
    Constant,
    Decision,
    _highest_cut,
    adapted,
    best_threshold,
    cross_fitted,
    guarded,
    learn_calibrator,
    learn_decision,
    recall_cut,
    with_threshold,
)
from themewire.taggers.base import UNLEARNED

CONFIG = DecisionConfig()
REVIEW = ReviewConfig(recall=0)


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
    decision = learn_decision(both, np.column_stack([labels, rare]), ["a", "b"], CONFIG, REVIEW)
    assert [theme.own_threshold for theme in decision.themes] == [True, False]
    assert decision.themes[1].threshold == decision.shared_threshold


def test_a_theme_without_examples_is_never_tagged():
    scores, labels = drawn(200)
    both = np.column_stack([scores, np.full(200, UNLEARNED, np.float32)])
    table = np.column_stack([labels, np.zeros(200, np.int8)])
    decision = learn_decision(both, table, ["a", "b"], CONFIG, REVIEW)
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
    decision = learn_decision(scores[:, None], labels[:, None], ["a"], CONFIG, REVIEW)
    at = decision.themes[0].threshold
    assert decision.review_reasons([at + 0.05]) == ["near_threshold:a"]
    assert decision.review_reasons([at + 0.2]) == []
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


def table(n, seed):
    """Three themes whose scores are the log-odds of their own labels."""
    columns = [drawn(n, seed * 10 + k) for k in range(3)]
    return np.column_stack([c[0] for c in columns]), np.column_stack([c[1] for c in columns])


def test_the_promised_recall_holds_on_stories_not_seen():
    kept = 0
    for seed in range(12):
        scores, labels = table(600, seed)
        decision = learn_decision(
            scores, labels, ["a", "b", "c"], CONFIG, ReviewConfig(recall=0.9, confidence=0.9)
        )
        assert decision.guarantee is not None
        scores, labels = table(4000, seed + 100)
        found = decision.found(decision.probabilities(scores))
        themed = labels.any(axis=1)
        recall = (found & labels.astype(bool)).sum(axis=1)[themed] / labels.sum(axis=1)[themed]
        kept += recall.mean() >= 0.9
    assert kept >= 10


def test_possible_themes_send_a_story_to_review():
    scores, labels = table(600, 1)
    names = ["a", "b", "c"]
    decision = learn_decision(scores, labels, names, CONFIG, ReviewConfig(band=0, recall=0.95))
    low, high = decision.themes[0].possible, decision.themes[0].threshold
    assert low < high
    assert decision.review_reasons([(low + high) / 2, 0, 0]) == ["possible:a"]
    assert decision.review_reasons([low / 2, 0, 0]) == []
    without = guarded(decision, scores, labels, recall=0, confidence=0.9)
    assert without.guarantee is None
    assert without.review_reasons([(low + high) / 2, 0, 0]) == []
    too_few = guarded(decision, scores[:20], labels[:20], recall=0.999, confidence=0.99)
    assert too_few.guarantee is None, "a level that cannot be held is not promised"


def test_adapting_lowers_probabilities_where_themes_are_rare():
    scores, labels = table(3000, 2)
    decision = learn_decision(scores, labels, ["a", "b", "c"], CONFIG, ReviewConfig())
    rare = scores[(labels == 0).all(axis=1)]
    moved = adapted(decision, rare)
    assert all(theme.shift < -1 for theme in moved.themes)
    assert (moved.probabilities(rare) < decision.probabilities(rare)).all()
    again = adapted(moved, rare)
    assert again == moved, "adapting starts from the learned probabilities each time"
    assert Decision.model_validate_json(moved.model_dump_json()) == moved


def test_a_threshold_by_hand():
    scores, labels = drawn(300)
    decision = learn_decision(scores[:, None], labels[:, None], ["a"], CONFIG)
    assert with_threshold(decision, "a", 0.7).themes[0].threshold == 0.7


def test_the_cut_for_a_recall_is_the_highest_of_all_hundredths():
    scores, labels = drawn(600)
    probabilities = (1 / (1 + np.exp(-scores.astype(float))))[:, None]
    found = recall_cut(probabilities, labels[:, None], 0.9, 0.9)
    themed = labels.astype(bool)
    held = probabilities[themed], labels[themed, None], 0.9, 0.9
    assert found == _highest_cut(np.arange(101) / 100, *held)
    assert 0 < found < 1
    assert recall_cut(probabilities[:20], labels[:20, None], 0.99, 0.99) == 0, "too few to say"
