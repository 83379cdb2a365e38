"""Sentences with their places: the title as its own sentence, the text line by line."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from statistics import median
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import sentencex

from themewire.articles import Article
from themewire.themes import LabelArray

LANGUAGE = "en"
PARAGRAPH = re.compile(r"\n[ \t]*(?:\n[ \t]*)+|\n(?=[ \t]{2,}\S)|\n(?=\S{0,3}[•*·][ \t])")
NO_SPACE = re.compile(r"\S+")
SENTENCE_END = re.compile(r"[.!?:;…][\"'”’»)\]]*\s*$")
WRAP_WIDTHS = (45, 100)
"""Columns at which hard-wrapped copy (old wires, mail) breaks its lines."""
SENTENCE_LIMIT = 4000
"""Characters; a run without any sentence end is cut at a space near here, so nothing grows without bound."""


class Sentence(NamedTuple):
    """One sentence of a story: `getattr(article, field)[start:end] == text`, in code points."""

    field: Literal["title", "text"]
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Story:
    """An article with its sentences, found once and kept."""

    article: Article

    @cached_property
    def sentences(self) -> list[Sentence]:
        """The title, then the sentences of the text, in reading order; never empty strings."""
        return split_sentences(self.article)

    @cached_property
    def evidence(self) -> Mapping[str, npt.NDArray[np.bool_]]:
        """For each theme with labelled evidence: which sentences that is, shape (n_sentences,)."""
        return {theme: evidence_sentences(self, theme) for theme in self.article.evidence}


def stories(articles: list[Article]) -> list[Story]:
    """The articles, ready to be read sentence by sentence."""
    return [Story(article) for article in articles]


def is_hard_wrapped(text: str) -> bool:
    """Whether line ends are a matter of column width, as in old wire copy, not of paragraphs."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 4:
        return False
    inner = lines[:-1]
    width = median(len(line) for line in inner)
    unfinished = sum(not SENTENCE_END.search(line) for line in inner)
    return WRAP_WIDTHS[0] <= width <= WRAP_WIDTHS[1] and unfinished >= 0.6 * len(inner)


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each run of text that no sentence crosses."""
    boundary = PARAGRAPH if is_hard_wrapped(text) else re.compile(r"\n")
    start = 0
    for match in boundary.finditer(text):
        yield start, match.start()
        start = match.end()
    yield start, len(text)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A sentence, or its parts where it is longer than any sentence should be."""
    while end - start > SENTENCE_LIMIT:
        cut = text.rfind(" ", start + SENTENCE_LIMIT // 2, start + SENTENCE_LIMIT)
        cut = cut if cut > 0 else start + SENTENCE_LIMIT
        yield start, cut
        start = cut
    yield start, end


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end, in code points, of every sentence of a text; white space outside."""
    spans = []
    for block_start, block_end in _blocks(text):
        block = text[block_start:block_end]
        if not block.strip():
            continue
        # sentencex ends a sentence at some line ends; inside a block they are only wrapping.
        for found in sentencex.get_sentence_boundaries(
            LANGUAGE, encodable(block).replace("\n", " ")
        ):
            start = block_start + found["start_index"]
            end = min(block_start + found["end_index"], block_end)
            for piece in _pieces(text, start, end):
                start_end = _trimmed(text, *piece)
                if start_end[0] < start_end[1]:
                    spans.append(start_end)
    return spans


def split_sentences(article: Article) -> list[Sentence]:
    """The sentences of an article: its title as one, then those of its text."""
    found = []
    start, end = _trimmed(article.title, 0, len(article.title))
    if start < end:
        found.append(Sentence("title", start, end, article.title[start:end]))
    found.extend(
        Sentence("text", start, end, article.text[start:end])
        for start, end in sentence_spans(article.text)
    )
    return found


def evidence_order(story: Story, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Places of the sentences by how much they speak for a theme, best first; scores: (n_sentences,).

    A reader has the headline before him anyway: it is left out where a sentence of the text speaks
    for the theme by itself, with a score above 0.
    """
    order = np.argsort(-scores, kind="stable")
    in_text = np.array([sentence.field == "text" for sentence in story.sentences], dtype=np.bool_)
    return order[in_text[order]] if (scores[in_text] > 0).any() else order


def evidence_spans(story: Story, theme: str) -> list[tuple[str, int, int]]:
    """(field, start, end) of each labelled evidence sentence of a theme, wherever it stands.

    Evidence is verbatim once white space is collapsed, so it is looked for in that form.
    """
    spans = []
    for field in ("title", "text"):
        value = getattr(story.article, field)
        words = [match.span() for match in NO_SPACE.finditer(value)]
        places = list(chain.from_iterable(range(*span) for span in words))
        bare = "".join(value[start:end] for start, end in words)
        for sentence in story.article.evidence.get(theme, ()):
            wanted = "".join(sentence.split())
            start = bare.find(wanted) if wanted else -1
            while start >= 0:
                spans.append((field, places[start], places[start + len(wanted) - 1] + 1))
                start = bare.find(wanted, start + len(wanted))
    return spans


def evidence_sentences(story: Story, theme: str) -> npt.NDArray[np.bool_]:
    """Which sentences of a story are labelled evidence of a theme, shape (n_sentences,).

    A sentence counts when at least half of its characters are shared with a labelled one.
    """
    spans = evidence_spans(story, theme)
    hits = np.zeros(len(story.sentences), dtype=np.bool_)
    for row, sentence in enumerate(story.sentences):
        for field, start, end in spans:
            shared = min(end, sentence.end) - max(start, sentence.start)
            if field == sentence.field and 2 * shared >= sentence.end - sentence.start:
                hits[row] = True
    return hits


def sentence_labels(
    story: Story, labels: npt.NDArray[np.int8], names: Sequence[str]
) -> LabelArray | None:
    """The themes each sentence carries, shape (n_sentences, n_themes); None where that is not known.

    Known are the sentences of a story without a theme, and of one with evidence for every theme.
    """
    themes = [name for name, given in zip(names, labels, strict=True) if given]
    if not all(story.article.evidence.get(theme) for theme in themes):
        return None
    carried = np.zeros((len(story.sentences), len(names)), dtype=np.int8)
    for column, name in enumerate(names):
        if labels[column]:
            carried[:, column] = story.evidence[name]
    return carried


def labelled_sentences(
    stories: Sequence[Story], labels: LabelArray, names: Sequence[str]
) -> tuple[list[str], LabelArray]:
    """The sentences whose themes are known, and those themes, shape (n_sentences, n_themes)."""
    texts: list[str] = []
    carried = [np.empty((0, len(names)), dtype=np.int8)]
    for story, row in zip(stories, labels, strict=True):
        known = sentence_labels(story, row, names)
        if known is not None:
            texts += [sentence.text for sentence in story.sentences]
            carried.append(known)
    return texts, np.concatenate(carried)


def encodable(text: str) -> str:
    """Text in which halves of surrogate pairs are question marks, character for character.

    Tokenizers take UTF-8 only; a string out of JSON may hold code points that have none.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def utf16(text: str) -> int:
    """Length in UTF-16 units, halves of surrogate pairs included."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


WORD = re.compile(r"[^\W\d_]+")
FUNCTION_WORDS = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "for", "from", "had", "has", "have",
     "he", "her", "his", "in", "is", "it", "its", "not", "of", "on", "or", "she", "that", "the", "their",
     "they", "this", "to", "was", "were", "which", "who", "will", "with", "would"}
)  # fmt: skip
ENGLISH_SHARE = 0.2
"""Share of function words from which a text counts as English; running prose has about twice that."""
JUDGED_WORDS = 20
"""Words below which nothing is said of a text's language."""


def word_checksums(text: str) -> npt.NDArray[np.uint32]:
    """A checksum of each word of a text in lower case, in reading order."""
    words = WORD.findall(encodable(text).lower())
    return np.array([zlib.crc32(word.encode()) for word in words], dtype=np.uint32)


def is_english(text: str) -> bool:
    """Whether a text reads as English, by its share of function words; short texts always do."""
    words = WORD.findall(text.lower())
    if len(words) < JUDGED_WORDS:
        return True
    return sum(word in FUNCTION_WORDS for word in words) >= ENGLISH_SHARE * len(words)
