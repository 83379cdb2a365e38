from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_records
from themewire.articles import Article
from themewire.errors import UsageError
from themewire.splits import make_folds, near_groups, near_pairs
from themewire.themes import plain_taxonomy

WORDS = [f"word{i}" for i in range(40)]
COPY = " ".join(WORDS)
NEAR = " ".join([*WORDS[:-2], "other", "end"])


def test_near_pairs_measure_exactly():
    pairs = near_pairs([COPY, "something else altogether here now", NEAR, COPY, "", ""], 0.7)
    assert pairs[0][1:] == (0, 3)
    assert {(i, j) for _, i, j in pairs} == {(0, 3), (0, 2), (2, 3)}
    # 36 shingles each, 34 shared
    assert pairs[1][0] == pytest.approx(34 / 38)


def test_groups_chain():
    assert near_groups([COPY, "nothing like it at all", NEAR], 0.7).tolist() == [0, 1, 0]


def corpus(seed, n=120):
    articles = [Article.model_validate(record) for record in tiny_records(n, seed)]
    labels = plain_taxonomy(["sale", "drill"]).label_array([a.themes for a in articles])
    groups = np.arange(n) // 2 * 2
    return articles, labels, groups


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_groups_whole_and_themes_balanced(seed):
    articles, labels, groups = corpus(seed)
    folds = make_folds(articles, labels, groups, 4, seed)
    assert set(folds) == {0, 1, 2, 3}
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    share = np.array([labels[folds == fold].mean(axis=0) for fold in range(4)])
    assert np.abs(share - labels.mean(axis=0)).max() < 0.15


def test_folds_do_not_depend_on_the_order_of_files():
    articles, labels, groups = corpus(1)
    folds = make_folds(articles, labels, groups, 4, 7)
    order = np.random.default_rng(0).permutation(len(articles))
    again = make_folds([articles[i] for i in order], labels[order], groups[order], 4, 7)
    assert np.array_equal(again, folds[order])


def test_too_few_articles_for_the_folds():
    articles, labels, groups = corpus(1, n=4)
    with pytest.raises(UsageError, match=r"split\.folds"):
        make_folds(articles, labels, groups, 3, 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 4))
def test_any_corpus_is_split_whole_balanced_and_the_same_each_time(seed, n_folds, group_size):
    articles, labels, _ = corpus(seed % 7)
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, len(articles) // group_size, size=len(articles))
    folds = make_folds(articles, labels, groups, n_folds, seed)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    assert set(folds) == set(range(n_folds))
    # tolerance: two groups' worth of a theme more or less than its share
    for column in labels.T:
        there = np.bincount(folds, weights=column, minlength=n_folds)
        assert np.abs(there - column.sum() / n_folds).max() <= 2 * np.bincount(groups).max() + 3
    order = rng.permutation(len(articles))
    again = make_folds([articles[i] for i in order], labels[order], groups[order], n_folds, seed)
    assert np.array_equal(again, folds[order])


def test_folds_by_date_are_stretches_of_time_latest_first():
    articles, labels, groups = corpus(3)
    dated = [a.model_copy(update={"published": f"{1990 + i % 30}"}) for i, a in enumerate(articles)]
    folds = make_folds(dated, labels, groups, 4, 0, "published")
    latest = {int(group): max(dated[i].published for i in np.flatnonzero(groups == group))
              for group in set(groups)}  # fmt: skip
    spans = [sorted(latest[int(g)] for g in groups[folds == fold]) for fold in range(4)]
    for later, earlier in pairwise(spans):
        assert later[0] >= earlier[-1]
    assert np.bincount(folds).min() >= 25
    with pytest.raises(UsageError, match="published"):
        make_folds(
            [a.model_copy(update={"published": None}) for a in articles],
            labels,
            groups,
            4,
            0,
            "published",
        )
