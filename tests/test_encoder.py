"""Encoder, vector store and the taggers that read sentences, on a tiny encoder made here."""

import json
import threading

import numpy as np
import pytest
import torch

from tests.conftest import NAMES, imported_beyond_the_core, tiny_records
from themewire.articles import Article
from themewire.bundle import HeldOut, load_bundle, save_bundle
from themewire.config import EncoderConfig, EncoderSettings, FinetuneConfig, make_config
from themewire.crossfit import cross_validate, fit_finally
from themewire.decisions import learn_decision
from themewire.encoder import by_length, padded, token_windows
from themewire.errors import UsageError
from themewire.pretrained import find_source, load_pretrained, stored_encoder
from themewire.taggers import assemble, fit_member
from themewire.taggers.base import UNLEARNED
from themewire.taggers.combiner import learn_combiner
from themewire.taggers.encoder import Head, Lesson, averaged, smooth_maximum
from themewire.taggers.finetune import MARK, complete_checkpoint, hardest
from themewire.text import stories
from themewire.themes import plain_taxonomy
from themewire.vectors import FRESH, StoredEncoder, VectorStore, sentence_key

TAXONOMY = plain_taxonomy(NAMES)


def corpus(number=60, seed=1):
    batch = stories([Article.model_validate(record) for record in tiny_records(number, seed)])
    return batch, TAXONOMY.label_array([story.article.themes for story in batch])


def settings(tiny_encoder, **more):
    return EncoderSettings(encoder=str(tiny_encoder), layers=(0, 2), window=16, **more)


@pytest.fixture(scope="module")
def encoder(tiny_encoder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("workshop"))
        yield stored_encoder(settings(tiny_encoder))


def test_vectors_are_those_of_transformers(encoder, tiny_encoder):
    """Padding, batches and windows change nothing: the reference reads one window at a time."""
    model, tokenizer = load_pretrained(find_source(settings(tiny_encoder)))
    sentences = [
        "The drill of the two fleets starts soon",
        "Rain",
        "rifles " * 60,
        "",
        "Ünïcode 🚀",
    ]
    found = encoder.encoder.encode(sentences)
    assert found.shape == (5, encoder.encoder.size)
    windows = token_windows(encoder.encoder.tokenizer, sentences, 16)
    assert [len(own) for own in windows] == [1, 1, 5, 1, 1]
    words = tokenizer(sentences[2], add_special_tokens=False)["input_ids"]
    assert [token for own in windows[2] for token in own[1:-1]] == words
    for vector, own in zip(found, windows, strict=True):
        sums = torch.zeros(encoder.encoder.size)
        for window in own:
            with torch.no_grad():
                states = model(torch.tensor([window]), output_hidden_states=True).hidden_states
            sums += torch.cat([states[0][0].sum(0), states[2][0].sum(0)])
        assert np.allclose(vector, sums / sum(map(len, own)), atol=1e-5)


def test_batches_hold_every_place_once_and_their_limit():
    lengths = [3, 50, 7, 7, 120, 1]
    batches = list(by_length(lengths, tokens=100))
    assert sorted(place for batch in batches for place in batch) == list(range(6))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 100
    ids, mask = padded([[5, 6], [7]])
    assert ids.tolist() == [[5, 6], [7, 0]]
    assert mask.tolist() == [[1, 1], [1, 0]]


class Counting:
    size = 4

    def __init__(self):
        self.seen = []

    def encode(self, sentences):
        self.seen += sentences
        return np.array([[len(s), 0.1, -1.5, 3e-7] for s in sentences], dtype=np.float32)


def test_nothing_is_encoded_twice(tmp_path):
    first = Counting()
    sentences = ["one", "two", "one", "three"]
    found = StoredEncoder(first, VectorStore(tmp_path / "v.db", 4)).encode(sentences)
    assert sorted(first.seen) == ["one", "three", "two"]
    second = Counting()
    again = StoredEncoder(second, VectorStore(tmp_path / "v.db", 4)).encode([*sentences, "four"])
    assert second.seen == ["four"]
    assert np.array_equal(again[:4], found)


def test_the_store_is_bounded_and_forgets_what_was_unused_longest(tmp_path, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("themewire.vectors.time.time", lambda: 2 * FRESH * next(clock))
    store = VectorStore(tmp_path / "v.db", 4, limit=3 * 16)
    keys = [sentence_key(text) for text in ("a", "b", "c", "d")]
    for key in keys[:3]:
        store.put([key], np.ones((1, 4), dtype=np.float32))
    store.get([keys[0]])
    store.put([keys[3]], np.ones((1, 4), dtype=np.float32))
    assert set(store.get(keys)) == {keys[0], keys[2], keys[3]}


def test_two_trainings_share_a_store(tmp_path):
    def work(number):
        store = VectorStore(tmp_path / "v.db", 4)
        for i in range(40):
            store.put([sentence_key(f"{i % 25}")], np.full((1, 4), i % 25, dtype=np.float32))
            done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(done) == 160
    found = VectorStore(tmp_path / "v.db", 4).get([sentence_key(str(i)) for i in range(25)])
    assert [int(found[sentence_key(str(i))][0]) for i in range(25)] == list(range(25))


def test_encoders_that_cannot_be_had(tmp_path):
    with pytest.raises(UsageError, match=r"give tagger\.revision"):
        find_source(EncoderSettings(encoder="someone/model"))
    with pytest.raises(UsageError, match="no such folder"):
        find_source(EncoderSettings(encoder="./nowhere"))
    with pytest.raises(UsageError, match=r"no \.safetensors"):
        find_source(EncoderSettings(encoder=str(tmp_path)))
    with pytest.raises(UsageError, match=r"someone/model.*reach the hub once"):
        load_pretrained(find_source(EncoderSettings(encoder="someone/model", revision="0" * 40)))


def test_weights_that_are_not_the_published_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("themewire.pretrained.file_digest", lambda path: "0" * 64)
    with pytest.raises(UsageError, match="not the published"):
        find_source(EncoderSettings())


def test_a_layer_or_a_window_too_high(tiny_encoder, workplace):
    with pytest.raises(UsageError, match="has layers 0 to 2"):
        stored_encoder(EncoderSettings(encoder=str(tiny_encoder), layers=(3,)))
    with pytest.raises(UsageError, match="takes 256 tokens at most"):
        stored_encoder(EncoderSettings(encoder=str(tiny_encoder), layers=(1,), window=257))


def test_the_smooth_maximum():
    scores = torch.tensor([[1.0, -2.0], [3.0, -2.0], [0.5, 0.0]])
    owners = torch.tensor([0, 0, 2])
    sharp = torch.tensor(2.0).log()
    pooled = smooth_maximum(scores, owners, 3, sharp)
    expected = torch.logsumexp(2 * scores[:2], dim=0) / 2
    assert torch.allclose(pooled[0], expected, atol=1e-5)
    assert torch.allclose(pooled[2], scores[2], atol=1e-5)
    head = Head(np.eye(2), np.zeros(2), np.eye(2), np.zeros(2), 2.0)
    assert np.allclose(head.pool(scores[:2].numpy()), expected.numpy(), atol=1e-5)
    assert (head.pool(np.empty((0, 2), dtype=np.float32)) < -20).all()


def test_what_is_not_known_of_a_sentence_is_not_taught():
    batch, labels = corpus(20)
    bare = [Article.model_validate(s.article.model_dump() | {"evidence": {}}) for s in batch]
    lesson = Lesson.of(stories(bare), labels, NAMES)
    themed = labels.any(axis=1)
    for i in range(20):
        span = slice(lesson.starts[i], lesson.starts[i + 1])
        assert (lesson.known[span] == (0.0 if themed[i] else 1.0)).all()
    assert not lesson.carried.any()


def test_the_hardest_sentences_hold_the_evidence():
    batch, labels = corpus(30)
    lesson = Lesson.of(batch, labels, NAMES)
    kept = hardest(np.zeros_like(lesson.carried), lesson, limit=2)
    for i, rows in enumerate(kept):
        assert len(rows) == min(2, lesson.starts[i + 1] - lesson.starts[i])
        span = slice(lesson.starts[i], lesson.starts[i + 1])
        assert lesson.carried[rows].sum() == min(2, lesson.carried[span].sum())


def member(tiny_encoder, kind, **more):
    shape = {"encoder": str(tiny_encoder), "layers": (0, 2), "hidden": 32, "dropout": 0.1}
    if kind == "encoder":
        return EncoderConfig(**shape, epochs=30, batch=8, **more)
    return FinetuneConfig(
        **shape,
        epochs=4,
        batch=8,
        frozen_layers=1,
        head_epochs=60,
        learning_rate=1e-3,
        head_learning_rate=5e-3,
        **more,
    )


@pytest.mark.parametrize("kind", ["encoder", "finetune"])
def test_it_learns_finds_the_sentence_and_travels(tiny_encoder, workplace, tmp_path, kind):
    batch, labels = corpus()
    heard = []
    tagger = fit_member(
        member(tiny_encoder, kind),
        batch,
        labels,
        NAMES,
        3,
        lambda figures, step: heard.append(figures),
    )
    assert bool(heard) == (kind == "finetune")
    fresh, truth = corpus(30, 2)
    scan = tagger.scan(fresh)
    assert ((scan.scores > 0) == truth.astype(bool)).mean() > 0.9
    for row in np.flatnonzero(truth[:, 0]):
        best = fresh[row].sentences[int(np.argmax(scan.sentence_scores([row])[0][:, 0]))]
        assert "rifles" in best.text
    config = make_config({"taxonomy": {"names": list(NAMES)}, "tagger": {"kind": kind}}, "test")
    decision = learn_decision(scan.scores, truth, NAMES, config.decision)
    save_bundle(
        tmp_path / "b", tagger=tagger, decision=decision, taxonomy=TAXONOMY, config=config, card="",
        held_out=HeldOut.of(fresh, scan.scores, truth),
    )  # fmt: skip
    again = load_bundle(tmp_path / "b").tagger
    assert again.kind == kind
    assert np.allclose(again.scan(fresh).scores, scan.scores, atol=1e-5)


def test_same_seed_same_head(tiny_encoder, workplace):
    batch, labels = corpus(30)
    first, second = (
        fit_member(member(tiny_encoder, "encoder"), batch, labels, NAMES, 5).scan(batch).scores
        for _ in range(2)
    )
    assert np.array_equal(first, second)


def test_averaged_heads_score_as_they_do_on_average(tiny_encoder, workplace):
    batch, labels = corpus(30)
    taggers = [fit_member(member(tiny_encoder, "encoder"), batch, labels, NAMES, s) for s in (1, 2)]
    heads = [tagger.head for tagger in taggers]
    vectors = taggers[0].encoder.encode([s.text for s in batch[0].sentences])
    each = [head.sentence_scores(vectors) for head in heads]
    assert np.allclose(averaged(heads).sentence_scores(vectors), np.mean(each, axis=0), atol=1e-4)
    unlearned = labels.copy()
    unlearned[:, 1] = 0
    other = fit_member(member(tiny_encoder, "encoder"), batch, unlearned, NAMES, 3).head
    found = averaged([heads[0], other]).sentence_scores(vectors)
    assert np.allclose(found[:, 1], each[0][:, 1], atol=1e-4), "left to the one that has learned it"
    assert (averaged([other, other]).sentence_scores(vectors)[:, 1] == UNLEARNED).all()


def test_the_heads_of_the_folds_make_the_final_one(tiny_encoder, workplace):
    batch, labels = corpus()
    config = make_config(
        {"taxonomy": {"names": list(NAMES)}, "split": {"folds": 3},
         "tagger": member(tiny_encoder, "encoder").model_dump()},
        "test",
    )  # fmt: skip
    found = cross_validate(config, batch, labels, np.arange(len(batch)), NAMES)
    (final,) = fit_finally(config, found, batch, labels, NAMES)
    assert final.head.inner.shape[1] == 3 * config.tagger.hidden
    fresh, truth = corpus(30, 2)
    assert ((final.scan(fresh).scores > 0) == truth.astype(bool)).mean() > 0.9


def test_a_stack_weighs_its_members(tiny_encoder, workplace, tmp_path):
    batch, labels = corpus()
    config = make_config(
        {"taxonomy": {"names": list(NAMES)},
         "split": {"folds": 3}, "tagger": {"kind": "stack", "sentences": member(tiny_encoder, "encoder").model_dump()}},
        "test",
    )  # fmt: skip
    found = cross_validate(config, batch, labels, np.arange(len(batch)), NAMES)
    assert found.combiner is not None
    assert found.evidence is not None
    assert found.evidence.hit_at_1 > 0.9
    parts = [
        fit_member(m, batch, labels, NAMES, 3)
        for m in (config.tagger.linear, config.tagger.sentences)
    ]
    tagger = assemble(parts, found.combiner)
    scan = tagger.scan(batch)
    expected = sum(
        w * p.scan(batch).scores for w, p in zip(found.combiner.weights, parts, strict=True)
    )
    assert np.allclose(scan.scores, expected + found.combiner.bias, atol=1e-4)
    decision = learn_decision(found.scores, labels, NAMES, config.decision)
    save_bundle(
        tmp_path / "b", tagger=tagger, decision=decision, taxonomy=TAXONOMY, config=config, card="",
        held_out=HeldOut.of(batch, found.scores, labels),
    )  # fmt: skip
    assert np.allclose(
        load_bundle(tmp_path / "b").tagger.scan(batch).scores, scan.scores, atol=1e-4
    )
    assert imported_beyond_the_core(tmp_path / "b", tmp_path) == []


def test_a_member_that_knows_nothing_gets_no_say():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 1)) < 0.4).astype(np.int8)
    good = (labels * 2.0 - 1 + rng.normal(0, 0.7, (300, 1))).astype(np.float32)
    against = -good + rng.normal(0, 0.1, (300, 1)).astype(np.float32)
    combiner = learn_combiner([good, against], labels)
    assert combiner.weights[0, 0] > 0
    assert combiner.weights[1, 0] == 0


def test_half_written_checkpoints_are_passed_over(tmp_path):
    for step, whole in ((5, True), (20, True), (100, False), (110, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"12345")
        if whole or step == 110:
            (folder / MARK).write_text(json.dumps({"model.safetensors": 5 if whole else 6}))
    assert complete_checkpoint(tmp_path) == tmp_path / "checkpoint-20"
    assert not (tmp_path / "checkpoint-100").exists()
    assert not (tmp_path / "checkpoint-110").exists()


@pytest.mark.slow
def test_several_processes_learn_together(tiny_encoder, workplace, monkeypatch):
    """As on several GPUs; here they share the cores."""
    monkeypatch.setattr("themewire.taggers.finetune.processes", lambda: 2)
    batch, labels = corpus()
    steps = []
    config = member(tiny_encoder, "finetune", validation=0.2)
    tagger = fit_member(config, batch, labels, NAMES, 3, lambda figures, step: steps.append(step))
    assert steps == sorted(steps)
    assert len(steps) > 2, "one of the two tells, not both and not neither"
    fresh, truth = corpus(30, 2)
    assert ((tagger.scan(fresh).scores > 0) == truth.astype(bool)).mean() > 0.9


def test_a_killed_finetune_goes_on_where_it_was(tiny_encoder, workplace, monkeypatch):
    """The figures of an interrupted and an uninterrupted training are the same."""
    batch, labels = corpus()
    config = member(tiny_encoder, "finetune", validation=0.2)
    whole = fit_member(config, batch, labels, NAMES, 3).scan(batch).scores

    class Killed(BaseException):
        pass

    def listener(figures, step):
        if step >= 6:
            raise Killed

    monkeypatch.setattr("themewire.pretrained.WORKSHOP", workplace / "other")
    monkeypatch.setattr("themewire.taggers.finetune.WORKSHOP", workplace / "other")
    with pytest.raises(Killed):
        fit_member(config, batch, labels, NAMES, 3, listener)
    assert list((workplace / "other").glob("finetune/*/checkpoint-*"))
    steps = []
    resumed = fit_member(config, batch, labels, NAMES, 3, lambda figures, step: steps.append(step))
    assert min(steps) > 3, "it began anew"
    assert np.allclose(resumed.scan(batch).scores, whole, atol=1e-4)
