"""The cascade: what it leaves unread, what that costs, and what it promises."""

import math
from typing import NamedTuple

import numpy as np
import pytest

from tests.conftest import NAMES
from tests.test_encoder import TAXONOMY, corpus, member
from themewire.articles import Article
from themewire.bundle import HeldOut, load_bundle, save_bundle
from themewire.config import make_config
from themewire.crossfit import cross_validate
from themewire.decisions import learn_decision
from themewire.taggers import assemble, fit_member
from themewire.taggers.cascade import Bag, Gate, fit_bag, learn_cuts, mean_vectors
from themewire.taggers.combiner import Combiner
from themewire.taggers.encoder import EncoderTagger, Head
from themewire.taggers.stack import StackTagger
from themewire.text import Story


class Read(NamedTuple):
    """Out-of-fold scores of one member."""

    scores: np.ndarray
    sentences: list[np.ndarray]


def smooth_max(sentences, sharpness):
    return np.log(np.exp(sharpness * sentences).sum(axis=0)) / sharpness


def made_up_articles(rng, count):
    """Articles of four sentences, one of which carries each theme; the cheap looks hear it less clearly.

    Returns what `linear` and the encoder say of them, and what a bag says of their sentences.
    """
    tags = rng.random((count, 2)) < 0.2
    places = rng.integers(4, size=tags.shape)
    carried = np.zeros((count, 4, 2))
    for column in range(2):
        carried[np.arange(count), places[:, column], column] = tags[:, column]
    shape = carried.shape
    linear = (rng.normal(size=shape) + 3 * carried - 1).astype(np.float32)
    sentences = (rng.normal(size=shape) + 9 * carried - 6).astype(np.float32)
    pooled = np.array([smooth_max(own, 4.0) for own in sentences], dtype=np.float32)
    bag = (rng.normal(size=shape) + 3 * carried - 1).astype(np.float32)
    return Read(linear.max(axis=1), list(linear)), Read(pooled, list(sentences)), list(bag)


def positive(scores):
    return scores > 0


def test_the_cuts_keep_what_it_promises():
    rng = np.random.default_rng(3)
    combiner = Combiner(np.array([[0.1, 0.1], [1, 1]], np.float32), np.zeros(2, np.float32))
    kept, read = [], []
    for _ in range(40):
        linear, sentences, bag = made_up_articles(rng, 1000)
        sharpness = np.full(1000, 4.0)
        cuts = learn_cuts(linear, sentences, bag, sharpness, combiner, positive, 0.98, 0.9)
        assert cuts is not None
        linear, sentences, bag = made_up_articles(rng, 1000)
        full = positive(combiner([linear.scores, sentences.scores]))
        marked = [
            (cuts.weights([own, other]) >= cuts.cut).any(axis=1)
            for own, other in zip(linear.sentences, bag, strict=True)
        ]
        partly = np.array(
            [
                smooth_max(np.where(mark[:, None], own, cuts.floor), 4.0)
                for mark, own in zip(marked, sentences.sentences, strict=True)
            ]
        )
        found = positive(combiner([linear.scores, partly]))
        kept.append((found & full).sum() / full.sum())
        read.append(np.concatenate(marked).mean())
    assert np.mean(np.array(kept) >= 0.98) >= 0.85
    assert np.mean(read) < 0.65


def test_cuts_need_tags_to_learn_from():
    linear, sentences, bag = made_up_articles(np.random.default_rng(3), 50)
    combiner = Combiner(np.ones((2, 2), np.float32), np.zeros(2, np.float32))
    sharpness = np.full(50, 4.0)
    assert learn_cuts(linear, sentences, bag, sharpness, combiner, positive, 0.99, 0.9) is None


def test_a_theme_without_a_tag_asks_for_no_reading():
    linear, sentences, bag = made_up_articles(np.random.default_rng(3), 1000)
    combiner = Combiner(np.ones((2, 2), np.float32), np.array([0, -99], np.float32))
    sharpness = np.full(1000, 4.0)
    cuts = learn_cuts(linear, sentences, bag, sharpness, combiner, positive, 0.98, 0.9)
    assert cuts is not None
    assert np.isfinite(cuts.cut[0])
    assert np.isinf(cuts.cut[1])


class Scanned(NamedTuple):
    """What a member with given scores says."""

    scores: np.ndarray
    sentences: list[np.ndarray]

    def sentence_scores(self, rows):
        return [self.sentences[row] for row in rows]


class Words:
    """A `linear` that scores what its table says of each sentence."""

    def __init__(self, table):
        self.table = table

    def scan(self, batch):
        found = [
            np.array([self.table[s.text] for s in story.sentences], np.float32) for story in batch
        ]
        return Scanned(np.array([own.max(axis=0) for own in found]), found)


class Encoded:
    """An encoder that remembers what it read, and says how long each sentence is."""

    def __init__(self):
        self.seen = []

    def encode(self, sentences):
        self.seen += sentences
        return np.array([[len(sentence)] for sentence in sentences], dtype=np.float32)

    def token_ids(self, sentences):
        return [[len(sentence) % 9] for sentence in sentences]


def test_a_cascade_reads_only_the_sentences_it_must():
    texts = ["Arms go. Rain falls.", "Rain falls. Snow falls.", "Snow falls. They drill."]
    batch = [Story(Article(id=str(i), text=text)) for i, text in enumerate(texts)]
    low = [-9, -9]
    linear = Words({"Arms go.": [2, -9], "They drill.": [-9, 1], "Rain falls.": low,
                    "Snow falls.": low})  # fmt: skip
    eye, none = np.ones((1, 2), np.float32), np.zeros(2, np.float32)
    head = Head(np.ones((1, 1), np.float32), np.zeros(1, np.float32), eye, none, 4.0)
    encoder = Encoded()
    combiner = Combiner(np.ones((2, 2), np.float32), np.zeros(2, np.float32))
    silent = Bag(np.zeros((9, 1), np.float32), none[:1], np.zeros((1, 2), np.float32), none)
    gate = Gate(silent, combiner, np.array([0, 0], np.float32), np.array([-4, -6], np.float32))
    whole = StackTagger(linear, EncoderTagger(encoder, head), combiner, gate).scan(batch)
    assert len(encoder.seen) == 6
    encoder.seen.clear()
    cascade = StackTagger(linear, EncoderTagger(encoder, head), combiner, gate, cascade=True)
    partly = cascade.scan(batch)
    assert encoder.seen == ["Arms go.", "They drill."]
    (found,), (expected,) = partly.sentence_scores([0]), whole.sentence_scores([0])
    assert np.array_equal(found[0], expected[0])
    assert found[1].tolist() == [-13, -15], "linear, and the floor"
    assert partly.scores[2, 1] == pytest.approx(1 + len("They drill."), abs=1e-3)
    assert partly.scores[1].tolist() == pytest.approx(
        [-13 + math.log(2) / 4, -15 + math.log(2) / 4]
    )
    encoder.seen.clear()
    cascade.scan([batch[1]])
    assert encoder.seen == [], "nothing to read, nothing run"


def test_means_are_those_of_each_sentence(monkeypatch):
    monkeypatch.setattr("themewire.taggers.cascade.TOKENS_AT_ONCE", 4)
    vectors = np.arange(10, dtype=np.float32)[:, None]
    sentences = [[1, 2, 3], [], [9], [4, 4, 4, 4, 4, 4, 10 - 1], [], [5]]
    expected = [2, 0, 9, (24 + 9) / 7, 0, 5]
    assert mean_vectors(vectors, sentences)[:, 0].tolist() == pytest.approx(expected)
    assert mean_vectors(vectors, []).shape == (0, 1)


def test_a_bag_tells_the_sentences_that_carry_a_theme(tiny_encoder, workplace, tmp_path):
    batch, labels = corpus(120)
    config = make_config(
        {"taxonomy": {"names": list(NAMES)}, "split": {"folds": 3},
         "tagger": {"kind": "stack", "sentences": member(tiny_encoder, "encoder").model_dump()}},
        "test",
    )  # fmt: skip
    found = cross_validate(config, batch, labels, np.arange(len(batch)), NAMES, cascade=True)
    assert [own.shape for own in found.bags] == [own.shape for own in found.sentences]
    settings = config.tagger.sentences
    bag = fit_bag(batch, labels, NAMES, settings, 3)
    parts = [fit_member(m, batch, labels, NAMES, 3) for m in (config.tagger.linear, settings)]
    everything = Gate(
        bag, Combiner(np.ones((2, len(NAMES)), np.float32), np.zeros(len(NAMES), np.float32)),
        np.full(len(NAMES), -np.inf, np.float32), np.zeros(len(NAMES), np.float32),
    )  # fmt: skip
    tagger = assemble(parts, found.combiner, everything)
    decision = learn_decision(found.scores, labels, NAMES, config.decision)
    config = config.model_copy(
        update={"predict": config.predict.model_copy(update={"cascade": True})}
    )
    save_bundle(
        tmp_path / "b", tagger=tagger, decision=decision, taxonomy=TAXONOMY, config=config, card="",
        held_out=HeldOut.of(batch, found.scores, labels),
    )  # fmt: skip
    loaded = load_bundle(tmp_path / "b").tagger
    assert loaded.cascade
    found = loaded.gate.bag.scan(loaded.sentences.encoder, batch[:5])
    for own, expected in zip(found, bag.scan(parts[1].encoder, batch[:5]), strict=True):
        assert np.allclose(own, expected)
    assert np.allclose(loaded.scan(batch).scores, tagger.scan(batch).scores, atol=1e-4)
