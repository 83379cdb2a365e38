from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from themewire.articles import Article
from themewire.text import (
    Story,
    encodable,
    evidence_order,
    is_hard_wrapped,
    sentence_spans,
    split_sentences,
)

WRAPPED = """The two governments said on Friday that the talks
on the lease of the airfield would go on through the
winter although a number of points remained open.
  Officials added that rent was the hardest of them
and that neither side had moved since the spring."""


def texts(text):
    return [text[start:end] for start, end in sentence_spans(text)]


def test_abbreviations_do_not_end_sentences():
    assert texts("Lt. Col. Smith left on Sept. 3. He was tired.") == [
        "Lt. Col. Smith left on Sept. 3.",
        "He was tired.",
    ]


def test_lines_end_sentences_in_unwrapped_text():
    assert texts("Headline without stop\nFirst sentence here.") == [
        "Headline without stop",
        "First sentence here.",
    ]


def test_hard_wrapped_lines_are_joined():
    assert is_hard_wrapped(WRAPPED)
    assert [t.split()[0] for t in texts(WRAPPED)] == ["The", "Officials"]


def test_title_is_a_sentence_of_its_own():
    found = split_sentences(Article(id="a", title=" A title ", text="One. Two."))
    assert [(s.field, s.text) for s in found] == [
        ("title", "A title"),
        ("text", "One."),
        ("text", "Two."),
    ]


def test_endless_text_is_cut_and_nothing_is_lost():
    text = "word " * 5000
    assert max(len(t) for t in texts(text)) <= 4000
    assert " ".join(texts(text)).split() == text.split()


@given(st.text(max_size=300))
def test_sentences_stand_where_they_say_and_hold_every_character(text):
    spans = sentence_spans(text)
    assert all(a < b for a, b in spans)
    assert all(x[1] <= y[0] for x, y in pairwise(spans))
    inside = "".join(text[a:b] for a, b in spans)
    assert "".join(inside.split()) == "".join(text.split())


@given(st.text(alphabet=st.characters(codec=None), max_size=50))
def test_encodable_keeps_every_place(text):
    assert len(encodable(text)) == len(text)
    encodable(text).encode()


def test_the_headline_is_evidence_only_where_no_sentence_of_the_text_speaks():
    story = Story(Article(id="1", title="Rifles sold.", text="Rain fell. Rifles went abroad."))
    assert [s.field for s in story.sentences] == ["title", "text", "text"]
    for scores, wanted in (
        ([3.0, -1.0, 2.0], [2, 1]),
        ([3.0, -1.0, -2.0], [0, 1, 2]),
        ([-3.0, -1.0, -2.0], [1, 2, 0]),
    ):
        assert evidence_order(story, np.array(scores, np.float32)).tolist() == wanted
    alone = Story(Article(id="2", title="Rifles sold."))
    assert evidence_order(alone, np.array([1.0], np.float32)).tolist() == [0]
