"""Worked examples, by hand."""

import numpy as np
import pytest

from tests.conftest import NAMES
from themewire.articles import Article
from themewire.metrics import measure, measure_evidence, resampled_f1
from themewire.text import Story, evidence_sentences

# four articles, two themes: (1,0) (1,1) (0,0) (0,1)
LABELS = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=np.int8)
# tags (1,0) (1,0) (0,1) (0,0): theme 1 has tp 2; theme 2 has fp 1, fn 2
TAGS = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=bool)
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.4], [0.2, 0.6], [0.1, 0.3]])


def test_figures_by_hand():
    found = measure(LABELS, PROBABILITIES, TAGS, NAMES, seed=0)
    first, second = found.themes
    assert (first.precision, first.recall, first.f1, first.support) == (1, 1, 1, 2)
    assert (second.precision, second.recall, second.f1, second.tagged) == (0, 0, 0, 1)
    assert found.macro_f1 == 0.5
    # all together: tp 2, fp 1, fn 2
    assert found.micro_precision == pytest.approx(2 / 3)
    assert found.micro_recall == pytest.approx(1 / 2)
    assert found.micro_f1 == pytest.approx(4 / 7)
    assert found.exact_match == 0.25
    assert found.without_tag == 0.25
    # theme 2 ranked: .6 no, .4 yes (1/2), .3 yes (2/3), .1 no
    assert second.average_precision == pytest.approx((1 / 2 + 2 / 3) / 2)
    # article 1: right label first, 1; article 2: both, 1; article 4: its label leads, 1
    assert found.lrap == 1


def test_conventions_for_nothing_at_all():
    nothing = np.zeros((3, 2), dtype=np.int8)
    found = measure(nothing, np.zeros((3, 2)), nothing.astype(bool), NAMES, seed=0)
    assert (found.micro_f1, found.macro_f1, found.exact_match) == (0, 0, 1)
    assert found.lrap is None
    assert found.mean_average_precision is None
    assert "lrap" not in found.flat()


def test_flat_names_are_the_contract():
    flat = measure(LABELS, PROBABILITIES, TAGS, NAMES, seed=0).flat("test/")
    assert {"test/macro_f1", "test/micro_f1", "test/theme/sale/f1",
            "test/interval/macro_low", "test/interval/macro_high"} <= set(flat)  # fmt: skip


def test_same_seed_same_draws_and_groups_stay_whole():
    a = resampled_f1(LABELS, TAGS, seed=3, resamples=50)
    b = resampled_f1(LABELS, TAGS, seed=3, resamples=50)
    assert np.array_equal(a, b)
    one_group = resampled_f1(LABELS, TAGS, 3, np.zeros(4, dtype=np.int64), resamples=50)
    assert np.ptp(one_group[0]) == 0


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    # tags right with probability .8 on half positives: precision and recall .8, so F1 .8
    inside = 0
    for trial in range(120):
        labels = (rng.random((200, 1)) < 0.5).astype(np.int8)
        tags = np.where(rng.random((200, 1)) < 0.8, labels, 1 - labels).astype(bool)
        micro, _ = resampled_f1(labels, tags, trial, resamples=200)
        low, high = np.percentile(micro, [2.5, 97.5])
        inside += low <= 0.8 <= high
    assert 0.88 <= inside / 120 <= 0.99


def story():
    return Story(Article(id="a", title="Rifles go north", text="It rained. The rifles\nwere sold. Bread.",
                         themes=("sale",), evidence={"sale": ("The rifles were sold.",)}))  # fmt: skip


def test_evidence_is_found_across_white_space():
    assert evidence_sentences(
        Story(Article(id="a", text="One. The rifles   were sold. Two.",
                      evidence={"sale": ("The rifles were sold.",)})), "sale"
    ).tolist() == [False, True, False]  # fmt: skip


def test_evidence_hits_by_hand():
    one = Story(Article(id="a", text="Alpha one. Beta two. Gamma three. Delta four.",
                        themes=NAMES, evidence={"sale": ("Beta two.",), "drill": ("Delta four.",)}))  # fmt: skip
    scores = np.array([[0, 3], [1, 2], [0, 1], [0, 0]], dtype=np.float32)
    found = measure_evidence([one], [scores], NAMES)
    assert found is not None
    assert (found.pairs, found.hit_at_1, found.hit_at_3) == (2, 0.5, 0.5)
    assert measure_evidence([Story(Article(id="b", text="x"))], [None], NAMES) is None
