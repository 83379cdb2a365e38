import numpy as np
import pytest

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
