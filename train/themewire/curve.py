"""The learning curve: what parts of the articles teach, each part inside the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from themewire.articles import Article
from themewire.checks import CheckResult
from themewire.config import Config
from themewire.crossfit import cross_validate, fit_finally
from themewire.decisions import cross_fitted, learn_decision
from themewire.metrics import Figures, measure
from themewire.splits import near_groups
from themewire.taggers import assemble
from themewire.text import stories

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class CurvePoint:
    """What a part of the articles teaches."""

    articles: int
    cv: Figures
    """Cross-validated on the part itself."""
    other: Figures | None
    """On other labelled articles, where some are given."""


def learning_curve(
    config: Config,
    checked: CheckResult,
    other: Sequence[Article] = (),
    shares: Sequence[float] = SHARES,
) -> Iterator[CurvePoint]:
    """Train on random parts of the articles, from the smallest up, and measure each time."""
    articles, names = checked.corpus.articles.articles, checked.corpus.taxonomy.names
    seed = config.split.seed
    order = np.random.default_rng(seed).permutation(len(articles)).tolist()
    for share in shares:
        # in reading order, as a training would meet them
        rows = sorted(order[: round(share * len(articles))])
        batch, groups = stories([articles[i] for i in rows]), checked.groups[rows]
        labels = checked.corpus.taxonomy.label_array([s.article.themes for s in batch])
        found = cross_validate(config, batch, labels, groups, names)
        truth = labels[found.rows]
        probabilities, tags = cross_fitted(found.scores, truth, found.folds, names, config.decision)
        cv = measure(truth, probabilities, tags, names, seed, groups[found.rows], found.evidence)
        measured = None
        if other:
            fitted = fit_finally(config, found, batch, labels, names)
            tagger = assemble(fitted, found.combiner)
            decision = learn_decision(found.scores, truth, names, config.decision)
            scores = tagger.scan(stories(list(other))).scores
            given = decision.probabilities(scores)
            measured = measure(
                checked.corpus.taxonomy.label_array([article.themes for article in other]),
                given,
                decision.tags(given),
                names,
                seed,
                near_groups([article.whole for article in other], config.checks.near_duplicate),
            )
        yield CurvePoint(len(batch), cv, measured)


def curve_picture(points: Sequence[CurvePoint]) -> Figure:
    """Macro-F1 against the number of articles, with its 95 % interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained", dpi=110)
    axes = figure.subplots()
    number = [point.articles for point in points]
    lines = {"cross-validated": [point.cv for point in points]}
    others = [point.other for point in points if point.other is not None]
    if len(others) == len(points):
        lines["other stories"] = others
    for name, figures in lines.items():
        low, high = zip(*(each.macro_interval for each in figures), strict=True)
        (line,) = axes.plot(number, [each.macro_f1 for each in figures], "o-", label=name)
        axes.fill_between(number, low, high, alpha=0.15, color=line.get_color())
    axes.set(xscale="log", xlabel="labelled articles", ylabel="macro-F1", ylim=(0, 1),
             title="learning curve (bands: 95 %)")  # fmt: skip
    axes.set_xticks(number, [f"{value:,}" for value in number], minor=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure
