import numpy as np
import pytest

from themewire.calibration import (
    estimated_shares,
    expected_f1_threshold,
    measure_calibration,
    reliability,
)


def truthful(n, seed, themes=2):
    rng = np.random.default_rng(seed)
    probabilities = rng.beta(0.5, 1.5, size=(n, themes))
    return (rng.random((n, themes)) < probabilities).astype(np.int8), probabilities


def test_ece_and_brier_by_hand():
    # ten stories, ten bins of one: the error is the mean distance
    probabilities = np.linspace(0.05, 0.95, 10)[:, None]
    labels = (probabilities > 0.5).astype(np.int8)
    (theme,), mean = measure_calibration(labels, probabilities, seed=0)
    distance = np.abs(labels - probabilities)
    assert theme.ece == pytest.approx(distance.mean())
    assert theme.brier == pytest.approx((distance**2).mean())
    assert mean.ece == theme.ece


def test_true_probabilities_lie_inside_the_band_and_bent_ones_do_not():
    inside = 0
    for seed in range(40):
        labels, probabilities = truthful(300, seed)
        _, mean = measure_calibration(labels, probabilities, seed)
        inside += mean.as_if_perfect
    assert 34 <= inside <= 40, "a 95 % band"
    labels, probabilities = truthful(300, 1)
    _, mean = measure_calibration(labels, probabilities**3, 0)
    assert not mean.as_if_perfect


def test_reliability_bins_have_equal_mass():
    labels, probabilities = truthful(1000, 3, themes=1)
    found = reliability(labels[:, 0], probabilities[:, 0])
    assert found.stories.tolist() == [100] * 10
    assert np.abs(found.observed - found.predicted).max() < 0.12


@pytest.mark.parametrize("share", [0.03, 0.25, 0.6])
def test_shares_of_a_shifted_stream_are_found(share):
    rng = np.random.default_rng(4)

    def scores(positive):
        return rng.normal(np.where(positive, 1.5, -1.5), 1.2)

    taught = 0.25
    present = rng.random(6000) < share
    # the true log-odds of a score drawn so, where the share is the taught one
    logit = scores(present) * 2 * 1.5 / 1.2**2 + np.log(taught / (1 - taught))
    probabilities = 1 / (1 + np.exp(-logit))
    found = estimated_shares(probabilities[:, None], np.array([taught]))
    assert found[0] == pytest.approx(share, abs=0.03)


def test_the_expected_cut_is_near_the_best_one():
    labels, probabilities = truthful(20_000, 5, themes=1)
    cut = expected_f1_threshold(probabilities[:, 0])

    def f1(threshold):
        tags = probabilities[:, 0] >= threshold
        return 2 * (tags & (labels[:, 0] == 1)).sum() / (tags.sum() + labels.sum())

    assert f1(cut) > max(f1(t) for t in np.linspace(0.05, 0.95, 19)) - 0.005
