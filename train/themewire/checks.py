"""Is the corpus sound: faults, duplicates, leaks, repeated phrases, and what it is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from themewire.articles import Article, Reading, collapsed
from themewire.config import Config
from themewire.errors import InputRefused
from themewire.splits import WORD, chained, near_pairs
from themewire.themes import Taxonomy

PHRASE = 8
"""Words of a run that should not come back all over the corpus."""
PHRASE_ARTICLES = 3
"""Articles a run of PHRASE words may stand in before it is reported."""
OPENING = 4
"""Words an article opens with; reported when more than one in a hundred opens alike."""
LENGTHS = (80, 150, 250, 400)
"""Upper ends, in words, of all length classes but the last."""
SHOWN = 10
"""Rows of a list that only warns."""
NONE = "(none)"


@dataclass(frozen=True)
class Duplicate:
    """Two articles that share most of their text."""

    similarity: float
    """Jaccard similarity of word 5-shingles; 1 for the same text."""
    first: str
    second: str
    leak: bool
    """Whether one of them is held back for the test."""

    def __str__(self) -> str:
        kind = "leak" if self.leak else "near-duplicate" if self.similarity < 1 else "duplicate"
        return f"{kind}: {self.first} and {self.second} share {self.similarity:.0%} of their text"


@dataclass(frozen=True)
class Table:
    """Counts by one property, for the screen, the data card and MLflow."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(frozen=True)
class Corpus:
    """The labelled articles a training works with."""

    taxonomy: Taxonomy
    articles: Reading
    test: Reading


@dataclass(frozen=True)
class CheckResult:
    """What `check` found."""

    corpus: Corpus
    duplicates: tuple[Duplicate, ...]
    groups: npt.NDArray[np.int64]
    """Shape (n_articles,): the near-duplicates among the articles to learn from, as `near_groups`."""
    phrases: tuple[tuple[str, int], ...]
    """Runs of words that stand in too many articles, with the number of articles."""
    openings: tuple[tuple[str, int], ...]
    tables: tuple[Table, ...]
    leaks_are_errors: bool

    @property
    def leaks(self) -> list[Duplicate]:
        """Stories shared by articles and test."""
        return [pair for pair in self.duplicates if pair.leak]

    @property
    def errors(self) -> list[str]:
        """What stops a training, a line each."""
        faults = [
            str(fault) for part in (self.corpus.articles, self.corpus.test) for fault in part.faults
        ]
        return faults + ([str(leak) for leak in self.leaks] if self.leaks_are_errors else [])

    @property
    def warnings(self) -> list[str]:
        """What the owner of the corpus should look at, a line each."""
        found = [str(pair) for pair in self.duplicates if not (pair.leak and self.leaks_are_errors)]
        found += [f"phrase in {n} articles: {phrase!r}" for phrase, n in self.phrases]
        found += [f"opening of {n} articles: {opening!r}" for opening, n in self.openings]
        return found

    def require_sound(self) -> None:
        """Raises InputRefused for bad records, no records, and leaks that count as errors."""
        both = Reading(
            articles=self.corpus.articles.articles + self.corpus.test.articles,
            faults=self.corpus.articles.faults + self.corpus.test.faults,
        )
        both.require_sound()
        if self.leaks and self.leaks_are_errors:
            raise InputRefused(
                f"{len(self.leaks)} stories stand in both articles and test; take them out of one, "
                "or let them pass with --set checks.leaks=warn"
            )


def read_corpus(config: Config) -> Corpus:
    """Read the articles and the test a configuration names; ids must differ across both.

    Raises:
        InputRefused: files that are not there or cannot be read.
        UsageError: no taxonomy.
    """
    from themewire.articles import Fault, read_articles, shown

    taxonomy = config.load_taxonomy()
    articles = read_articles(config.data.articles, taxonomy)
    test = read_articles(config.data.test, taxonomy) if config.data.test else Reading()
    places = dict(zip((a.id for a in articles.articles), articles.places, strict=True))
    for article, place in zip(test.articles, test.places, strict=True):
        if article.id in places:
            path, _, line = place.rpartition(":")
            hint = f"{places[article.id]} has it too; change one"
            test.faults.append(Fault(path, int(line), "id", shown(article.id), hint))
    return Corpus(taxonomy, articles, test)


def _named(reading: Reading) -> list[tuple[Article, str]]:
    return list(zip(reading.articles, reading.places, strict=True))


def find_duplicates(
    corpus: Corpus, threshold: float
) -> tuple[list[Duplicate], npt.NDArray[np.int64]]:
    """(pairs inside and across articles and test, the likest first; the group of each article)."""
    named = _named(corpus.articles) + _named(corpus.test)
    n_articles = len(corpus.articles.articles)
    pairs = near_pairs([article.whole for article, _ in named], threshold)
    found = [
        Duplicate(similarity, named[i][1], named[j][1], leak=(i < n_articles) != (j < n_articles))
        for similarity, i, j in pairs
    ]
    return found, chained([pair for pair in pairs if pair[2] < n_articles], n_articles)


def repeated_phrases(texts: Iterable[str]) -> list[tuple[str, int]]:
    """Runs of PHRASE words that stand in more than PHRASE_ARTICLES texts, the commonest first.

    Of overlapping runs the first is named.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    order: list[list[tuple[str, ...]]] = []
    for text in texts:
        words = WORD.findall(text.lower())
        runs = list(dict.fromkeys(zip(*(words[i:] for i in range(PHRASE)), strict=False)))
        counts.update(runs)
        order.append(runs)
    often = {run: n for run, n in counts.items() if n > PHRASE_ARTICLES}
    named: dict[tuple[str, ...], int] = {}
    for runs in order:
        last = -PHRASE
        for position, run in enumerate(runs):
            if run in often and position - last >= PHRASE:
                named[run] = often[run]
                last = position
    return [(" ".join(run), n) for run, n in sorted(named.items(), key=lambda item: -item[1])][
        :SHOWN
    ]


def repeated_openings(articles: Sequence[Article]) -> list[tuple[str, int]]:
    """The first OPENING words that more than one article in a hundred (and more than three) share."""
    counts = Counter(
        " ".join(WORD.findall((article.text or article.title).lower())[:OPENING])
        for article in articles
    )
    least = max(PHRASE_ARTICLES, len(articles) // 100)
    return [(opening, n) for opening, n in counts.most_common(SHOWN) if n > least]


def length_class(words: int) -> str:
    """The name of the length class of a story with so many words."""
    lower = 0
    for upper in LENGTHS:
        if words < upper:
            return f"{lower}-{upper - 1} words"
        lower = upper
    return f"{lower}+ words"


def _decade(article: Article) -> str:
    return f"{article.published[:3]}0s" if article.published else NONE


def _pairs(article: Article, taxonomy: Taxonomy) -> list[str]:
    return [" + ".join(pair) for pair in combinations(taxonomy.in_order(article.themes), 2)]


def composition(corpus: Corpus) -> list[Table]:
    """What the corpus is made of: tables by theme, pair, number of themes, length, decade, genre, country."""
    taxonomy = corpus.taxonomy
    parts = [corpus.articles.articles, corpus.test.articles]

    def table(
        title: str, counts: Sequence[Counter[str]], order: Sequence[str] | None = None
    ) -> Table:
        both = counts[0] + counts[1]
        keys = order or [key for key, _ in both.most_common(SHOWN)]
        rows = [(key, str(counts[0][key]), str(counts[1][key])) for key in keys]
        rest = len(both) - len(keys)
        if rest > 0:
            left = [sum(c.values()) - sum(c[key] for key in keys) for c in counts]
            rows.append((f"{rest} more", str(left[0]), str(left[1])))
        return Table(title, (title, "articles", "test"), tuple(rows))

    def counted(keys: Sequence[Iterable[str]]) -> Counter[str]:
        return Counter(key for article_keys in keys for key in article_keys)

    def number(article: Article) -> str:
        return {0: "none", 1: "one theme", 2: "two themes"}.get(len(article.themes), "more")

    lengths = [length_class(n) for n in (0, *LENGTHS)]
    tables = [
        table("theme", [counted([a.themes or (NONE,) for a in part]) for part in parts],
              [*taxonomy.names[: 4 * SHOWN], NONE] if len(taxonomy) <= 4 * SHOWN else None),
        table("themes an article", [Counter(map(number, part)) for part in parts],
              ["none", "one theme", "two themes", "more"]),
        table("pair", [counted([_pairs(a, taxonomy) for a in part]) for part in parts]),
        table("length", [Counter(length_class(len(a.whole.split())) for a in part) for part in parts],
              lengths),
        table("decade", [Counter(map(_decade, part)) for part in parts]),
        table("genre", [Counter(a.genre or NONE for a in part) for part in parts]),
        table("country", [counted([a.countries or (NONE,) for a in part]) for part in parts]),
    ]  # fmt: skip
    return [found for found in tables if found.rows]


def check_corpus(config: Config) -> CheckResult:
    """Read the corpus and look at it from every side; nothing is changed.

    Raises:
        InputRefused: files that are not there or cannot be read.
    """
    corpus = read_corpus(config)
    everything = corpus.articles.articles + corpus.test.articles
    duplicates, groups = find_duplicates(corpus, config.checks.near_duplicate)
    return CheckResult(
        corpus=corpus,
        duplicates=tuple(duplicates),
        groups=groups,
        phrases=tuple(repeated_phrases(collapsed(article.whole) for article in everything)),
        openings=tuple(repeated_openings(everything)),
        tables=tuple(composition(corpus)),
        leaks_are_errors=config.checks.leaks == "error",
    )
