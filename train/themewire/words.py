"""The words of many texts at once, found with numpy alone: no loop over words, and free of Python's lock.

A word is what scikit-learn's TfidfVectorizer has: a run of two word characters or more, in lower case.
It is known by a number of 64 bits, the polynomial hash of its characters (Karp and Rabin 1987): were
such numbers drawn at random, any two of a million words would share one once in ten million times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C15
"""Odd, so that no power of it is lost modulo 2**64."""
ASCII = np.array([chr(code).isalnum() or chr(code) == "_" for code in range(128)])
SHORTEST = 2


@dataclass(frozen=True)
class FoundWords:
    """The words of texts, one text after another."""

    hashes: Hashes
    rows: npt.NDArray[np.int64]
    """The text that each belongs to."""
    joined: str
    starts: npt.NDArray[np.int64]
    """Where each word begins in `joined`."""
    lengths: npt.NDArray[np.int64]

    def spelled(self, places: npt.NDArray[np.int64]) -> list[str]:
        """The words at these places."""
        spans = zip(self.starts[places].tolist(), self.lengths[places].tolist(), strict=True)
        return [self.joined[start : start + length] for start, length in spans]


def find_words(texts: Sequence[str]) -> FoundWords:
    """The words of texts."""
    lowered = [text.lower() for text in texts]
    joined = "\n".join([*lowered, ""])
    codes = _codes(joined)
    inside = _word_characters(codes)
    # a line end follows every text, so each word has a character before its end that is none
    edges = np.flatnonzero(np.diff(inside, prepend=False))
    starts, ends = edges[::2], edges[1::2]
    long_enough = ends - starts >= SHORTEST
    starts, lengths = starts[long_enough], (ends - starts)[long_enough]
    text_ends = np.cumsum([len(text) + 1 for text in lowered])
    rows = np.searchsorted(text_ends, starts, side="right")
    return FoundWords(_hashed(codes, starts, lengths), rows, joined, starts, lengths)


def hash_words(words: Sequence[str]) -> Hashes:
    """The hash of each word, whatever characters it has; 0 for an empty one."""
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    hashes = np.zeros(len(words), dtype=np.uint64)
    some = lengths > 0
    starts = np.cumsum(lengths) - lengths
    hashes[some] = _hashed(_codes("".join(words)), starts[some], lengths[some])
    return hashes


def _codes(text: str) -> npt.NDArray[np.uint32]:
    """The code points of a text, lone surrogates too."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _word_characters(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Which characters regular expressions know as word characters."""
    inside = ASCII[np.minimum(codes, 127)]
    wide = np.flatnonzero(codes > 127)
    if len(wide):
        kinds, places = np.unique(codes[wide], return_inverse=True)
        inside[wide] = np.array([chr(code).isalnum() for code in kinds.tolist()])[places]
    return inside


def _hashed(
    codes: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> Hashes:
    """The sum of (code + 1) · BASE ** place over each word's characters, modulo 2**64; no word is empty."""
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    firsts = np.cumsum(lengths) - lengths
    places = np.arange(lengths.sum()) - np.repeat(firsts, lengths)
    powers = np.full(int(lengths.max()), BASE, dtype=np.uint64).cumprod(dtype=np.uint64)
    # + 1, or a NUL would count for nothing
    values = (codes[np.repeat(starts, lengths) + places] + np.uint64(1)) * powers[places]
    return np.asarray(np.add.reduceat(values, firsts), dtype=np.uint64)
