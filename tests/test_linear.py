import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from tests.conftest import NAMES, tiny_records
from themewire.articles import Article
from themewire.config import LinearConfig
from themewire.taggers.base import UNLEARNED
from themewire.taggers.linear import LinearTagger, Vocabulary, as_matrix, fit_linear
from themewire.text import stories
from themewire.themes import plain_taxonomy

TEXTS = [record["text"] for record in tiny_records(40, 3)] + [
    "Ünïcode naïve naïve café's",
    "",
    "a b c",
]


@pytest.mark.parametrize("stop_words", [False, True])
@pytest.mark.parametrize("ngrams", [1, 2])
@pytest.mark.parametrize("sublinear", [False, True])
def test_counts_are_scikit_learns(stop_words, ngrams, sublinear):
    config = LinearConfig(stop_words=stop_words, ngrams=ngrams, sublinear=sublinear)
    ours = Vocabulary.learn(TEXTS, config)
    theirs = TfidfVectorizer(
        ngram_range=(1, ngrams), min_df=2, sublinear_tf=sublinear,
        stop_words="english" if stop_words else None,
    )  # fmt: skip
    table = theirs.fit_transform(TEXTS).toarray()
    mine = as_matrix(ours.rows(TEXTS), ours.n_columns).toarray()
    assert mine.shape == table.shape
    # the columns stand in another order
    assert np.allclose(np.sort(mine, axis=1), np.sort(table, axis=1), atol=1e-6)
    assert np.allclose(mine @ mine.T, table @ table.T, atol=1e-5)


def fitted(**settings):
    batch = stories([Article.model_validate(record) for record in tiny_records(60, 1)])
    labels = plain_taxonomy(["sale", "drill"]).label_array([s.article.themes for s in batch])
    return fit_linear(batch, labels, NAMES, LinearConfig(**settings), 0), batch, labels


@pytest.mark.parametrize("model", ["logistic", "svm"])
def test_it_learns_and_travels(tmp_path, model):
    tagger, batch, labels = fitted(model=model)
    scores = tagger.scan(batch).scores
    assert ((scores > 0) == labels.astype(bool)).mean() > 0.98
    tagger.save(tmp_path)
    again = LinearTagger.load(tmp_path).scan(batch)
    assert np.array_equal(again.scores, scores)


def test_the_sentence_that_carries_the_theme_scores_highest():
    tagger, batch, labels = fitted()
    scan = tagger.scan(batch)
    rows = np.flatnonzero(labels[:, 0])
    assert len(rows) > 5
    for row in rows:
        best = int(np.argmax(scan.sentence_scores([row])[0][:, 0]))
        assert "rifles" in batch[row].sentences[best].text


def test_a_theme_without_examples_stays_unlearned():
    batch = stories([Article.model_validate(record) for record in tiny_records(20, 1)])
    labels = np.zeros((20, 2), dtype=np.int8)
    labels[:10, 0] = 1
    scores = fit_linear(batch, labels, NAMES, LinearConfig(), 0).scan(batch).scores
    assert (scores[:, 1] == UNLEARNED).all()


def test_sentences_teach_and_pool():
    alone, batch, _ = fitted(sentence_weight=0.0, pool=0.0)
    taught, _, _ = fitted(sentence_weight=0.3, pool=1.0)
    scan = taught.scan(batch)
    best = np.array([own.max(axis=0) for own in scan.sentence_scores(range(len(batch)))])
    assert np.allclose(scan.scores, best, atol=1e-6)
    assert not np.allclose(alone.by_theme, taught.by_theme)


def test_empty_and_unknown_texts_get_the_bias():
    tagger, _, _ = fitted()
    assert np.array_equal(tagger.score_texts(["", "zzz qqq"]), np.tile(tagger.bias, (2, 1)))
