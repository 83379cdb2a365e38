"""A bundle on labelled articles: its answers and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from themewire.articles import Article
from themewire.bundle import Bundle
from themewire.calibration import Probabilities
from themewire.decisions import TagArray
from themewire.metrics import Figures, measure, measure_evidence
from themewire.splits import near_groups
from themewire.taggers.base import Scores, Tagger
from themewire.text import Story, stories
from themewire.themes import LabelArray


@dataclass(frozen=True)
class Measured:
    """A tagger's answers on labelled articles, with what they are worth; arrays are (n_articles, n_themes)."""

    stories: Sequence[Story]
    labels: LabelArray
    probabilities: Probabilities
    tags: TagArray
    sentences: Sequence[Scores]
    """Raw scores of each story's sentences, shape (n_sentences, n_themes) each."""
    figures: Figures


def scan_all(tagger: Tagger, batch: Sequence[Story]) -> tuple[Scores, list[Scores]]:
    """Raw scores of stories, shape (n_stories, n_themes), and of the sentences of each."""
    scan = tagger.scan(batch)
    return scan.scores, list(scan.sentence_scores(range(len(batch))))


def measure_bundle(bundle: Bundle, articles: Sequence[Article], seed: int) -> Measured:
    """Tag labelled articles with a bundle and measure the answers."""
    batch = stories(list(articles))
    names = bundle.taxonomy.names
    labels = bundle.taxonomy.label_array([article.themes for article in articles])
    scores, sentences = scan_all(bundle.tagger, batch)
    probabilities = bundle.decision.probabilities(scores)
    tags = bundle.decision.tags(probabilities)
    groups = near_groups(
        [article.whole for article in articles], bundle.config.checks.near_duplicate
    )
    evidence = measure_evidence(batch, sentences, names)
    figures = measure(labels, probabilities, tags, names, seed, groups, evidence)
    return Measured(batch, labels, probabilities, tags, sentences, figures)
