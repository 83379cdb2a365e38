import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from themewire.words import find_words, hash_words

WORD = re.compile(r"\w\w+")


@given(st.lists(st.text(st.characters(codec=None), max_size=40), max_size=6))
def test_words_are_those_of_the_regular_expression(texts):
    found = find_words(texts)
    wanted = [(word, row) for row, text in enumerate(texts) for word in WORD.findall(text.lower())]
    spelled = found.spelled(np.arange(len(found.hashes)))
    assert list(zip(spelled, found.rows.tolist(), strict=True)) == wanted
    assert np.array_equal(found.hashes, hash_words(spelled))


@given(st.lists(st.text(max_size=8), unique=True, max_size=50))
def test_different_words_have_different_hashes(words):
    assert len(set(hash_words(words).tolist())) == len(words)


def test_a_word_hashes_the_same_whatever_stands_around_it():
    alone, inside = find_words(["frigate"]), find_words(["a (Frigate), of", "the FRIGATE"])
    assert inside.hashes[0] == inside.hashes[-1] == alone.hashes[0]


def test_one_word_of_a_million_characters():
    (length,) = find_words(["x" * 1_000_000]).lengths
    assert length == 1_000_000
