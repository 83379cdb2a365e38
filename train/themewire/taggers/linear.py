"""`linear`: TF-IDF of words and word pairs into one linear model a theme.

Counted with numpy, in training and prediction alike; scikit-learn fits the weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from themewire.config import LinearConfig
from themewire.taggers.base import UNLEARNED, Scores
from themewire.text import Story, labelled_sentences
from themewire.themes import LabelArray
from themewire.threads import in_threads
from themewire.words import FoundWords, find_words, hash_words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

CHUNK = 512
"""Texts a thread takes at a time: memory stays bounded, and their arrays near the core."""


class Counts(NamedTuple):
    """TF-IDF values in compressed sparse rows, each row of length 1 or empty."""

    values: npt.NDArray[np.float32]
    columns: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    """Shape (n_texts + 1,): row i holds the entries from starts[i] to starts[i + 1]."""


class Words(NamedTuple):
    """The words of texts, one text after another."""

    numbers: npt.NDArray[np.int64]
    """0 is a word that is not counted."""
    rows: npt.NDArray[np.int64]
    """The text that each belongs to."""

    def pairs(self, n_words: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(the key of each two counted words that follow each other in a text, that text)."""
        first, second = self.numbers[:-1], self.numbers[1:]
        inside = (self.rows[:-1] == self.rows[1:]) & (first > 0) & (second > 0)
        return first[inside] * n_words + second[inside], self.rows[:-1][inside]


def in_chunks(texts: Sequence[str]) -> list[Sequence[str]]:
    """Texts, some at a time."""
    return [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]


class Vocabulary:
    """Turns texts into TF-IDF rows.

    Words numbered 1 to `n_skipped` are stop words: taken out before pairs are formed. The columns
    are the remaining words, then the word pairs, whose keys are first * n_words + second.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        n_skipped: int,
        pairs: npt.NDArray[np.int64],
        idf: npt.NDArray[np.float32],
        sublinear: bool,
    ) -> None:
        self.words = words
        self.n_words = len(words) + 1
        self.n_skipped = n_skipped
        self.pairs = pairs
        self.idf = idf
        self.sublinear = sublinear
        hashes = hash_words(words)
        self._order = np.argsort(hashes)
        self._hashes = hashes[self._order]

    @property
    def n_columns(self) -> int:
        """Words and pairs together."""
        return len(self.idf)

    def _numbered(self, found: FoundWords) -> Words:
        """Words by their numbers, stop words taken out."""
        numbers = np.zeros(len(found.hashes), dtype=np.int64)
        if len(self._hashes):
            places = np.searchsorted(self._hashes, found.hashes)
            places[places == len(self._hashes)] = 0
            known = self._hashes[places] == found.hashes
            numbers[known] = self._order[places[known]] + 1
        if not self.n_skipped:
            return Words(numbers, found.rows)
        kept = (numbers == 0) | (numbers > self.n_skipped)
        return Words(numbers[kept], found.rows[kept])

    def _entries(
        self, found: Words
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(row, column, count) of everything counted, sorted by row and column."""
        first_column = self.n_skipped + 1
        known = found.numbers > 0
        columns, owners = found.numbers[known] - first_column, found.rows[known]
        if len(self.pairs):
            keys, pair_rows = found.pairs(self.n_words)
            places = np.searchsorted(self.pairs, keys)
            places[places == len(self.pairs)] = 0
            counted = self.pairs[places] == keys
            columns = np.concatenate([columns, places[counted] + self.n_words - first_column])
            owners = np.concatenate([owners, pair_rows[counted]])
        cells, counts = np.unique(owners * self.n_columns + columns, return_counts=True)
        return cells // self.n_columns, cells % self.n_columns, counts

    def rows(self, texts: Sequence[str]) -> Counts:
        """The TF-IDF rows of texts, each normalised to length 1."""
        chunks = list(in_threads(self._chunk_rows, in_chunks(texts)))
        if len(chunks) == 1:
            return chunks[0]
        ends = np.cumsum([0, *(len(chunk.values) for chunk in chunks)])
        starts = [chunk.starts[:-1] + end for chunk, end in zip(chunks, ends[:-1], strict=True)]
        return Counts(
            np.concatenate([np.empty(0, np.float32), *(chunk.values for chunk in chunks)]),
            np.concatenate([np.empty(0, np.int64), *(chunk.columns for chunk in chunks)]),
            np.concatenate([*starts, ends[-1:]]),
        )

    def _chunk_rows(self, texts: Sequence[str]) -> Counts:
        owners, columns, counts = self._entries(self._numbered(find_words(texts)))
        weight = 1.0 + np.log(counts) if self.sublinear else counts.astype(np.float64)
        values = weight * self.idf[columns]
        squares = np.bincount(owners, weights=values**2, minlength=len(texts))
        values /= np.sqrt(squares)[owners]
        starts = np.searchsorted(owners, np.arange(len(texts) + 1))
        return Counts(values.astype(np.float32), columns, starts)

    @classmethod
    def learn(cls, texts: Sequence[str], config: LinearConfig) -> Vocabulary:
        """The words and pairs that stand in at least `min_df` texts, with their idf.

        idf is ln((1 + n) / (1 + df)) + 1, scikit-learn's smoothed form.
        """
        stop = sorted(_english_stop_words()) if config.stop_words else []
        spelled = find_words(texts)
        _, firsts = np.unique(spelled.hashes, return_index=True)
        words = [*stop, *sorted(set(spelled.spelled(firsts)).difference(stop))]
        draft = cls._without_idf(words, len(stop), np.empty(0, np.int64), config)
        found = draft._numbered(spelled)
        often = draft._document_frequency(found) >= config.min_df
        kept = [word for word, is_often in zip(words[len(stop) :], often, strict=True) if is_often]
        # the same words by the numbers they have once the rare ones are gone
        numbers = np.zeros(draft.n_words, dtype=np.int64)
        numbers[1 + len(stop) :][often] = len(stop) + 1 + np.arange(len(kept))
        found = Words(numbers[found.numbers], found.rows)
        words = [*stop, *kept]
        pairs = np.empty(0, np.int64)
        if config.ngrams > 1:
            pairs = _frequent_pairs(found, len(words) + 1, config.min_df)
        learned = cls._without_idf(words, len(stop), pairs, config)
        df = learned._document_frequency(found)
        learned.idf = (np.log((1 + len(texts)) / (1 + df)) + 1).astype(np.float32)
        return learned

    @classmethod
    def _without_idf(
        cls,
        words: Sequence[str],
        n_skipped: int,
        pairs: npt.NDArray[np.int64],
        config: LinearConfig,
    ) -> Vocabulary:
        idf = np.ones(len(words) - n_skipped + len(pairs), dtype=np.float32)
        return cls(
            words,
            n_skipped=n_skipped,
            pairs=pairs,
            idf=idf,
            sublinear=config.sublinear,
        )

    def _document_frequency(self, found: Words) -> npt.NDArray[np.int64]:
        _, columns, _ = self._entries(found)
        return np.bincount(columns, minlength=self.n_columns)


def _frequent_pairs(found: Words, n_words: int, min_df: int) -> npt.NDArray[np.int64]:
    """The keys of the pairs that stand in at least `min_df` texts, in rising order."""
    keys, rows = found.pairs(n_words)
    pairs, numbers = np.unique(keys, return_inverse=True)
    in_text = np.unique(rows * max(1, len(pairs)) + numbers)
    df = np.bincount(in_text % max(1, len(pairs)), minlength=len(pairs))
    return pairs[df >= min_df]


def _english_stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    # one-letter words are no words here
    return frozenset(word for word in ENGLISH_STOP_WORDS if len(word) > 1)


@dataclass(frozen=True)
class LinearScan:
    """Article scores, and sentence scores: kept where pooling needed them, else on request."""

    tagger: LinearTagger
    stories: Sequence[Story]
    scores: Scores
    kept: Sequence[Scores] | None

    def sentence_scores(self, rows: Sequence[int]) -> Sequence[Scores]:
        """Each sentence read as if it were a story of its own, shape (n_sentences, n_themes) each."""
        if self.kept is not None:
            return [self.kept[row] for row in rows]
        return self.tagger.score_sentences([self.stories[row] for row in rows])


class LinearTagger:
    """One weight a column and theme, shape (n_columns, n_themes), and one bias a theme."""

    kind = "linear"

    def __init__(self, vocabulary: Vocabulary, weights: Scores, bias: Scores, pool: float) -> None:
        self.vocabulary = vocabulary
        # a theme's weights side by side: picked many times as fast as out of rows of all themes
        self.by_theme = np.ascontiguousarray(weights.T)
        self.bias = bias
        self.pool = pool

    def score_texts(self, texts: Sequence[str]) -> Scores:
        """Raw scores of texts, shape (n_texts, n_themes)."""
        none = np.empty((0, len(self.bias)), dtype=np.float32)
        return np.concatenate([none, *in_threads(self._score_chunk, in_chunks(texts))])

    def _score_chunk(self, texts: Sequence[str]) -> Scores:
        counts = self.vocabulary.rows(texts)
        scores = np.tile(self.bias, (len(texts), 1))
        filled = np.flatnonzero(np.diff(counts.starts))
        if len(filled):
            for column, weights in enumerate(self.by_theme):
                products = weights[counts.columns] * counts.values
                scores[filled, column] += np.add.reduceat(products, counts.starts[filled])
        return scores

    def score_sentences(self, stories: Sequence[Story]) -> list[Scores]:
        """Raw scores of the sentences of each story, shape (n_sentences, n_themes) each."""
        if not stories:
            return []
        scores = self.score_texts([s.text for story in stories for s in story.sentences])
        ends = np.cumsum([len(story.sentences) for story in stories])
        return np.split(scores, ends[:-1])

    def scan(self, stories: Sequence[Story]) -> LinearScan:
        """Read stories whole and, where the best sentence has a share, sentence by sentence."""
        scores = self.score_texts([story.article.whole for story in stories])
        if not self.pool:
            return LinearScan(self, stories, scores, None)
        kept = self.score_sentences(stories)
        # a story of control characters alone has no sentence: then the whole stands in
        best = np.array(
            [
                found.max(axis=0) if len(found) else whole
                for found, whole in zip(kept, scores, strict=True)
            ]
        )
        return LinearScan(
            self, stories, ((1 - self.pool) * scores + self.pool * best).astype(np.float32), kept
        )

    def save(self, folder: Path) -> None:
        """Write `words.json` and `linear.safetensors`."""
        (folder / "words.json").write_text(json.dumps(list(self.vocabulary.words)), "utf-8")
        arrays: dict[str, npt.NDArray[Any]] = {
            "weights": np.ascontiguousarray(self.by_theme.T),
            "bias": self.bias,
            "idf": self.vocabulary.idf,
            "pairs": self.vocabulary.pairs,
            "n_skipped": np.array([self.vocabulary.n_skipped]),
            "sublinear": np.array([int(self.vocabulary.sublinear)]),
            "pool": np.array([self.pool]),
        }
        save_file(arrays, folder / "linear.safetensors")

    @classmethod
    def load(cls, folder: Path) -> LinearTagger:
        """Read what `save` wrote.

        Raises:
            ValueError: words that are none.
        """
        arrays = load_file(folder / "linear.safetensors")
        words = json.loads((folder / "words.json").read_text("utf-8"))
        if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
            raise ValueError("words.json: a list of words wanted; train anew with this version")
        vocabulary = Vocabulary(
            words,
            n_skipped=int(arrays["n_skipped"][0]),
            pairs=arrays["pairs"],
            idf=arrays["idf"],
            sublinear=bool(arrays["sublinear"][0]),
        )
        return cls(vocabulary, arrays["weights"], arrays["bias"], float(arrays["pool"][0]))


def fit_linear(
    stories: Sequence[Story],
    labels: LabelArray,
    names: Sequence[str],
    config: LinearConfig,
    seed: int,
) -> LinearTagger:
    """Learn a tagger from stories and their labels, shape (n_stories, n_themes).

    Where evidence is labelled, sentences are further examples: each with the themes it is evidence
    of, which teaches the words that carry a theme and not the company they keep.
    """
    texts = [story.article.whole for story in stories]
    vocabulary = Vocabulary.learn(texts, config)
    weight = np.ones(len(texts))
    if config.sentence_weight:
        sentences, carried = labelled_sentences(stories, labels, names)
        texts += sentences
        labels = np.concatenate([labels, carried])
        weight = np.concatenate([weight, np.full(len(sentences), config.sentence_weight)])
    features = as_matrix(vocabulary.rows(texts), vocabulary.n_columns)
    weights = np.zeros((vocabulary.n_columns, labels.shape[1]), dtype=np.float32)
    bias = np.full(labels.shape[1], UNLEARNED, dtype=np.float32)
    for column in range(labels.shape[1]):
        target = labels[:, column]
        if target.min() == target.max():
            bias[column] = -UNLEARNED if target.min() else UNLEARNED
            continue
        model = _make_model(config, seed).fit(features, target, sample_weight=weight)
        weights[:, column] = model.coef_[0]
        bias[column] = model.intercept_[0]
    return LinearTagger(vocabulary, weights, bias, config.pool)


def as_matrix(counts: Counts, n_columns: int) -> csr_matrix:
    """The rows as a SciPy matrix, shape (n_texts, n_columns), for scikit-learn."""
    from scipy.sparse import csr_matrix

    shape = (len(counts.starts) - 1, n_columns)
    return csr_matrix((counts.values.astype(np.float64), counts.columns, counts.starts), shape)


def _make_model(config: LinearConfig, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    weight = "balanced" if config.balanced else None
    if config.model == "svm":
        return LinearSVC(C=config.c, class_weight=weight, random_state=seed, max_iter=10_000)
    return LogisticRegression(
        C=config.c, class_weight=weight, solver="liblinear", random_state=seed
    )
