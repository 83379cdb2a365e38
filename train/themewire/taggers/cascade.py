"""The cascade: which sentences the encoder need not read, told from their words at a fraction of the cost.

Two cheap looks at a sentence are weighed together: `linear`, which knows words and pairs, and a bag of
the encoder's own word vectors, which knows that "tutored" is near "trained". What both find too weak is
left unread, and cuts learned on out-of-fold scores say how weak that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from themewire.config import EncoderConfig, EncoderSettings
from themewire.encoder import Encoder
from themewire.taggers.base import UNLEARNED, Scores
from themewire.taggers.combiner import Combiner, learn_combiner
from themewire.text import Story
from themewire.themes import LabelArray

BAG = EncoderConfig(hidden=64)
"""How the bag's head is taught."""
TOKENS_AT_ONCE = 2**16
"""Tokens whose vectors are in memory together, one long sentence aside."""


@dataclass(frozen=True)
class Bag:
    """A sentence as the mean of its tokens' vectors, and one hidden layer on it.

    Like fastText's classifier (Joulin et al. 2017), but the vectors are the encoder's, and the layer
    below the hidden units is folded into them.
    """

    tokens: Scores
    """Shape (n_tokens, hidden)."""
    inner_bias: Scores
    outer: Scores
    """Shape (hidden, n_themes)."""
    outer_bias: Scores

    def scan(self, encoder: Encoder, stories: Sequence[Story]) -> list[Scores]:
        """Raw scores of the sentences of each story, shape (n_sentences, n_themes) each."""
        sentences = [s.text for story in stories for s in story.sentences]
        means = mean_vectors(self.tokens, encoder.token_ids(sentences))
        hidden = np.maximum(means + self.inner_bias, 0.0)
        scores = np.asarray(hidden @ self.outer + self.outer_bias, dtype=np.float32)
        return np.split(scores, np.cumsum([len(story.sentences) for story in stories])[:-1])


def mean_vectors(vectors: Scores, sentences: Sequence[Sequence[int]]) -> Scores:
    """Means of token vectors, shape (n_sentences, size); zeros for a sentence without a token."""
    means = np.zeros((len(sentences), vectors.shape[1]), dtype=np.float32)
    for start, end in _portions([len(own) for own in sentences]):
        part = sentences[start:end]
        lengths = np.array([len(own) for own in part])
        filled = np.flatnonzero(lengths)
        if len(filled):
            numbers = _flat(part)
            starts = np.cumsum(lengths[filled]) - lengths[filled]
            sums = np.add.reduceat(vectors[numbers], starts, axis=0)
            means[start + filled] = sums / lengths[filled, None]
    return means


def _flat(sentences: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    count = sum(len(own) for own in sentences)
    return np.fromiter((token for own in sentences for token in own), np.int64, count)


def _portions(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = total = 0
    for place, length in enumerate(lengths):
        if total and total + length > TOKENS_AT_ONCE:
            yield start, place
            start, total = place, 0
        total += length
    yield start, len(lengths)


def fit_bag(
    stories: Sequence[Story],
    labels: LabelArray,
    names: Sequence[str],
    settings: EncoderSettings,
    seed: int,
) -> Bag:
    """Learn a bag from stories and their labels, shape (n_stories, n_themes), on the encoder's word vectors."""
    from scipy.sparse import csr_matrix

    from themewire.pretrained import stored_encoder, word_vectors
    from themewire.taggers.encoder import Lesson, head_arrays, teach_head

    table = word_vectors(settings.frozen())
    encoder = stored_encoder(settings.frozen())
    found = encoder.token_ids([s.text for story in stories for s in story.sentences])
    lengths = np.array([len(own) for own in found])
    # a sparse product is many times as fast as `mean_vectors` on vectors of full length
    shares = np.repeat(1 / np.maximum(lengths, 1), lengths).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    mixture = csr_matrix((shares, _flat(found), starts), (len(found), len(table)))
    taught = teach_head(
        mixture @ table, Lesson.of(stories, labels, names), BAG, seed,
        epochs=BAG.epochs, learning_rate=BAG.learning_rate, batch=BAG.batch,
    )  # fmt: skip
    head = head_arrays(taught, labels)
    return Bag(
        (table @ head.inner).astype(np.float32), head.inner_bias, head.outer, head.outer_bias
    )


@dataclass(frozen=True)
class Gate:
    """Which sentences are read, and what the others score."""

    bag: Bag
    weights: Combiner
    """Of `linear` and the bag, each theme's."""
    cut: Scores
    """Shape (n_themes,): a sentence is read if any of its weighed scores reaches the theme's cut."""
    floor: Scores
    """Shape (n_themes,): the encoder member's score of a sentence that it has not read."""

    def lets_through(
        self, encoder: Encoder, stories: Sequence[Story], linear: Sequence[Scores]
    ) -> list[npt.NDArray[np.bool_]]:
        """Which sentences of each story are read, shape (n_sentences,), by their `linear` scores."""
        return [
            np.asarray((self.weights(looks) >= self.cut).any(axis=1))
            for looks in zip(linear, self.bag.scan(encoder, stories), strict=True)
        ]

    def save(self, path: Path) -> None:
        """Write everything as safetensors."""
        bag, weights = self.bag, self.weights
        save_file(
            {
                "tokens": bag.tokens, "inner_bias": bag.inner_bias,
                "outer": np.ascontiguousarray(bag.outer), "outer_bias": bag.outer_bias,
                "weights": weights.weights, "bias": weights.bias,
                "cut": self.cut, "floor": self.floor,
            },
            path,
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Gate:
        """Read what `save` wrote."""
        found = load_file(path)
        bag = Bag(found["tokens"], found["inner_bias"], found["outer"], found["outer_bias"])
        weights = Combiner(found["weights"], found["bias"])
        return cls(bag, weights, found["cut"], found["floor"])


class OutOfFold(Protocol):
    """What a member says of articles it has not learned from."""

    @property
    def scores(self) -> Scores:
        """Shape (n_articles, n_themes)."""

    @property
    def sentences(self) -> Sequence[Scores]:
        """Of each article's sentences, shape (n_sentences, n_themes) each."""


@dataclass(frozen=True)
class Cuts:
    """What a gate learns from out-of-fold scores; as in `Gate`."""

    weights: Combiner
    cut: Scores
    floor: Scores
    read: Sequence[npt.NDArray[np.bool_]]
    """Which sentences of the articles it learned from are read, shape (n_sentences,) each."""


def learn_cuts(
    linear: OutOfFold,
    sentences: OutOfFold,
    bag: Sequence[Scores],
    sharpness: Scores,
    combiner: Combiner,
    tags: Callable[[Scores], npt.NDArray[np.bool_]],
    kept: float,
    confidence: float,
) -> Cuts | None:
    """The highest cuts with which a share of the tags is kept, with a confidence.

    A theme's cut may lose the same share of its tags as any other's, and all together as many as a
    binomial bound allows (the one-sided interval of Clopper and Pearson 1934): cuts that rise
    together are one family, tested in its order. None where there are too few tags to say.

    Args:
        linear: out of fold.
        sentences: the member that reads sentences, out of fold.
        bag: the bag's scores of each article's sentences, out of fold.
        sharpness: with which the sentences of each article were pooled, shape (n_articles,).
        combiner: what weighs the two members.
        tags: the decision, from combined scores to tags, both (n_rows, n_themes).
        kept: share of the tags of a full reading that must be kept.
        confidence: that it is.
    """
    from scipy.stats import binom

    every = np.concatenate(sentences.sentences)
    floor = np.median(every, axis=0).astype(np.float32)
    full = tags(combiner([linear.scores, sentences.scores]))
    total = int(full.sum())
    missed = np.arange(total)
    allowed = binom.cdf(missed, total, 1 - kept) <= 1 - confidence
    if not allowed.any():
        return None
    share = int(missed[allowed].max()) / total
    looks = [np.concatenate(linear.sentences), np.concatenate(bag)]
    weights = learn_combiner(looks, (every > 0).astype(np.int8))
    glance = np.split(weights(looks), np.cumsum([len(own) for own in bag])[:-1])
    # without a tag nothing can be lost: such a theme asks for no reading
    cut = np.full(full.shape[1], np.inf, dtype=np.float32)
    for column in np.flatnonzero(full.any(axis=0)).tolist():
        rows: list[int] = np.flatnonzero(full[:, column]).tolist()
        orders = [np.argsort(-glance[row][:, column], kind="stable") for row in rows]
        # each article's score with its first k sentences read, the others at the floor; k from 0 to all
        turns = [
            linear.scores[row, column] * combiner.weights[0, column]
            + combiner.weights[1, column]
            * _pooled_in_turn(
                sentences.sentences[row][order, column], float(floor[column]), float(sharpness[row])
            )
            + combiner.bias[column]
            for row, order in zip(rows, orders, strict=True)
        ]
        trial = np.full((sum(map(len, turns)), full.shape[1]), UNLEARNED, dtype=np.float32)
        trial[:, column] = np.concatenate(turns)
        kept_tags = np.split(tags(trial)[:, column], np.cumsum([len(own) for own in turns])[:-1])
        reach = []
        for row, order, held in zip(rows, orders, kept_tags, strict=True):
            lost = np.flatnonzero(~held)
            # where even all of them fall short by a rounding, all are needed
            last = min(int(lost[-1]), len(order) - 1) if len(lost) else None
            reach.append(np.inf if last is None else float(glance[row][order[last], column]))
        cut[column] = np.sort(reach)[int(share * len(reach))]
    return Cuts(weights, cut, floor, [np.asarray((own >= cut).any(axis=1)) for own in glance])


def _pooled_in_turn(scores: Scores, floor: float, sharpness: float) -> Scores:
    """The smooth maximum of sentences of which the first k are read, the rest at the floor; k from 0."""
    count = len(scores)
    read = np.logaddexp.accumulate(np.concatenate([[-np.inf], sharpness * scores]))
    with np.errstate(divide="ignore"):
        unread = np.log(count - np.arange(count + 1)) + sharpness * floor
    return np.asarray(np.logaddexp(read, unread) / sharpness, dtype=np.float32)
