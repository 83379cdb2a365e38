"""Who may see what: groups of near-duplicates, and folds that keep groups whole and themes balanced."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH

from themewire.articles import Article
from themewire.errors import UsageError
from themewire.themes import LabelArray

SHINGLE = 5
"""Words; shorter shingles tie together stories that only share stock phrases."""
PERMUTATIONS = 64
GROUP_CAP = 50
"""Articles; chains of likeness stop growing here, so that one fold never takes half the corpus."""
WORD = re.compile(r"\w+")


def shingles(text: str) -> set[bytes]:
    """The runs of SHINGLE words of a text; a shorter text is one run."""
    words = WORD.findall(text.lower())
    last = max(1, len(words) - SHINGLE + 1)
    return {" ".join(words[i : i + SHINGLE]).encode("utf-8", "replace") for i in range(last)}


def near_pairs(texts: Sequence[str], threshold: float) -> list[tuple[float, int, int]]:
    """Every (similarity, i, j), i < j, with the shingles' Jaccard similarity at or above `threshold`.

    Candidates come from MinHash with locality-sensitive hashing (Broder 1997; Indyk and Motwani
    1998); each is then measured exactly. Texts without words pair with nothing.
    """
    sets = [shingles(text) if WORD.search(text) else set() for text in texts]
    signatures = MinHash.bulk([sorted(found) for found in sets], num_perm=PERMUTATIONS, seed=1)
    # candidates are verified below, so the index may be generous
    index = MinHashLSH(threshold=max(0.1, threshold - 0.15), num_perm=PERMUTATIONS)
    pairs = []
    for i, (found, signature) in enumerate(zip(sets, signatures, strict=True)):
        if not found:
            continue
        for j in index.query(signature):
            similarity = len(found & sets[j]) / len(found | sets[j])
            if similarity >= threshold:
                pairs.append((similarity, int(j), i))
        index.insert(i, signature)
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))


def near_groups(texts: Sequence[str], threshold: float) -> npt.NDArray[np.int64]:
    """The group of each text, shape (n_texts,): near-duplicates and what they chain to, up to GROUP_CAP."""
    return chained(near_pairs(texts, threshold), len(texts))


def chained(pairs: Iterable[tuple[float, int, int]], count: int) -> npt.NDArray[np.int64]:
    """The group of each of `count` texts, shape (count,), by `near_pairs` that are known already."""
    parent = list(range(count))
    size = [1] * count

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for _, i, j in pairs:
        a, b = sorted((root(i), root(j)))
        if a != b and size[a] + size[b] <= GROUP_CAP:
            parent[b] = a
            size[a] += size[b]
    return np.array([root(i) for i in range(count)], dtype=np.int64)


def make_folds(
    articles: Sequence[Article],
    labels: LabelArray,
    groups: npt.NDArray[np.int64],
    n_folds: int,
    seed: int,
    by: str = "themes",
) -> npt.NDArray[np.int64]:
    """The fold of each article, shape (n_articles,).

    By "themes", groups are dealt out whole by iterative stratification (Sechidis et al. 2011) on the
    themes any of their articles has, with "no theme" as a theme of its own. By "published", each
    fold is a stretch of time, the latest being fold 0; a group stands where its latest article
    does. The result depends on the articles' ids and the seed, not on the order of files.

    Raises:
        UsageError: fewer groups than folds; by date, articles without one.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    by_id = sorted(range(len(articles)), key=lambda row: articles[row].id)
    members: dict[int, list[int]] = {}
    for row in by_id:
        members.setdefault(int(groups[row]), []).append(row)
    blocks = list(members.values())
    if len(blocks) < n_folds:
        raise UsageError(
            f"split.folds: {n_folds} folds need at least as many different articles, {len(blocks)} given"
        )
    if by == "published":
        return _by_date(articles, blocks, n_folds)
    any_theme = np.array([labels[rows].max(axis=0) for rows in blocks])
    table = np.column_stack([any_theme, any_theme.max(axis=1) == 0]).astype(np.int8)
    splitter = MultilabelStratifiedKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    folds = np.empty(len(articles), dtype=np.int64)
    for fold, (_, held) in enumerate(splitter.split(np.zeros((len(blocks), 1)), table)):
        for block in held:
            folds[blocks[block]] = fold
    return folds


def _by_date(
    articles: Sequence[Article], blocks: Sequence[Sequence[int]], n_folds: int
) -> npt.NDArray[np.int64]:
    undated = [article.id for article in articles if article.published is None]
    if undated:
        raise UsageError(
            f"split.by: 'published' needs a date on every article; {len(undated)} have none, "
            f"the first is {undated[0]!r}"
        )
    # a date given in part stands at its beginning
    latest = [max(str(articles[row].published) for row in rows) for rows in blocks]
    order = sorted(range(len(blocks)), key=lambda block: latest[block], reverse=True)
    folds = np.empty(len(articles), dtype=np.int64)
    done = 0
    for block in order:
        folds[list(blocks[block])] = min(n_folds - 1, done * n_folds // len(articles))
        done += len(blocks[block])
    return folds
