"""Pictures of how a model does and of what a corpus is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from themewire.calibration import Probabilities, reliability
from themewire.checks import CheckResult, Corpus
from themewire.config import Config
from themewire.decisions import Decision, TagArray
from themewire.metrics import Figures
from themewire.text import Story
from themewire.themes import LabelArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_THEMES = 8
"""Themes drawn in one picture: those with the most articles."""


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def _largest(labels: LabelArray) -> list[int]:
    order = np.argsort(-labels.sum(axis=0), kind="stable")[:SHOWN_THEMES]
    return sorted(int(column) for column in order if labels[:, column].any())


def precision_recall_picture(
    labels: LabelArray,
    probabilities: Probabilities,
    decision: Decision,
    names: Sequence[str],
    figures: Figures,
    what: str,
) -> Figure:
    """A precision-recall curve a theme, with a dot where the decision stands on it."""
    from sklearn.metrics import precision_recall_curve

    figure = _figure(7.5, 5.5)
    axes = figure.subplots()
    for column in _largest(labels):
        theme = figures.themes[column]
        precision, recall, _ = precision_recall_curve(labels[:, column], probabilities[:, column])
        (line,) = axes.plot(recall, precision, drawstyle="steps-post", linewidth=1.6,
                            label=f"{names[column]}  AP {theme.average_precision:.2f}")  # fmt: skip
        axes.plot(theme.recall, theme.precision, "o", color=line.get_color(), markersize=7)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision",
             title=f"{what}: precision and recall (dots: the decision taken)")  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=9)
    return figure


def reliability_picture(
    labels: LabelArray, probabilities: Probabilities, names: Sequence[str], what: str
) -> Figure:
    """What probabilities say against what is seen, a line a theme, in bins of equal mass."""
    figure = _figure(7.5, 5.5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    for column in _largest(labels):
        found = reliability(labels[:, column], probabilities[:, column])
        axes.plot(found.predicted, found.observed, "o-", markersize=4, label=names[column])
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="mean probability", ylabel="share that has the theme",
             title=f"{what}: reliability (on the line: probabilities mean what they say)")  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=9)
    return figure


def theme_figures_picture(figures: Figures, what: str) -> Figure:
    """Precision, recall and F1 of each theme as bars."""
    themes = sorted(figures.themes, key=lambda theme: -theme.support)[: 3 * SHOWN_THEMES]
    figure = _figure(8, 1.2 + 0.55 * len(themes))
    axes = figure.subplots()
    places = np.arange(len(themes))
    for offset, key in ((-0.25, "precision"), (0.0, "recall"), (0.25, "f1")):
        values = [getattr(theme, key) for theme in themes]
        bars = axes.barh(places + offset, values, height=0.23, label=key)
        axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    axes.set(yticks=places, yticklabels=[f"{t.name} ({t.support})" for t in themes], xlim=(0, 1.1),
             title=f"{what}: by theme (number of labelled articles)")  # fmt: skip
    axes.invert_yaxis()
    axes.legend(loc="lower right", fontsize=9)
    return figure


def corpus_picture(corpus: Corpus) -> Figure:
    """Theme counts, which themes go together, and lengths."""
    names = corpus.taxonomy.names
    articles = corpus.articles.articles + corpus.test.articles
    labels = corpus.taxonomy.label_array([article.themes for article in articles])
    shown = np.argsort(-labels.sum(axis=0), kind="stable")[: 2 * SHOWN_THEMES]
    shown = np.sort(shown)
    figure = _figure(14, 4.6)
    counts, together, lengths = figure.subplots(1, 3)
    rows = [*(names[column] for column in shown), "(none)"]
    values = [
        *(int(labels[:, column].sum()) for column in shown),
        int((labels.sum(axis=1) == 0).sum()),
    ]
    counts.bar_label(counts.barh(rows, values), fontsize=8, padding=2)
    counts.invert_yaxis()
    counts.margins(x=0.15)
    counts.set(title="articles by theme")
    table = labels[:, shown].T.astype(int) @ labels[:, shown]
    together.imshow(table, cmap="Blues")
    for i, j in np.ndindex(*table.shape):
        dark = table[i, j] > table.max() / 2
        together.text(j, i, table[i, j], ha="center", va="center", fontsize=8,
                      color="white" if dark else "black")  # fmt: skip
    together.set(xticks=range(len(shown)), yticks=range(len(shown)), title="themes together",
                 yticklabels=[names[column] for column in shown])  # fmt: skip
    together.set_xticks(
        range(len(shown)), [names[column] for column in shown], rotation=30, ha="right"
    )
    words = [len(article.whole.split()) for article in articles]
    lengths.hist(np.clip(words, 0, 800), bins=40)
    lengths.set(title="length", xlabel="words (800 and more in the last bar)", ylabel="articles")
    return figure


def theme_rows(figures: Figures, decision: Decision) -> list[dict[str, object]]:
    """One row a theme, for the screen and for MLflow."""
    thresholds = {theme.theme: theme for theme in decision.themes}
    return [
        {
            "theme": theme.name,
            "precision": round(theme.precision, 3),
            "recall": round(theme.recall, 3),
            "f1": round(theme.f1, 3),
            "average precision": None
            if theme.average_precision is None
            else round(theme.average_precision, 3),
            "articles": theme.support,
            "tagged": theme.tagged,
            "threshold": round(thresholds[theme.name].threshold, 3),
            "own threshold": thresholds[theme.name].own_threshold,
        }
        for theme in figures.themes
    ]


def error_rows(
    stories: Sequence[Story],
    labels: LabelArray,
    probabilities: Probabilities,
    tags: TagArray,
    names: Sequence[str],
) -> list[dict[str, object]]:
    """One row a wrong tag: missed or wrongly given, the surest mistakes first, with the text."""
    rows = []
    for row, column in np.argwhere(labels.astype(bool) != tags):
        article, probability = stories[row].article, float(probabilities[row, column])
        rows.append(
            {
                "theme": names[column],
                "mistake": "missed" if labels[row, column] else "wrongly given",
                "probability": round(probability, 3),
                "id": article.id,
                "title": article.title,
                "text": article.text,
                "labelled": ", ".join(article.themes),
                "evidence": " … ".join(article.evidence.get(names[column], ())),
            }
        )
    return sorted(
        rows,
        key=lambda item: -abs(float(str(item["probability"])) - (item["mistake"] == "missed")),
    )


def model_card(
    config: Config, checked: CheckResult, cv: Figures, test: Figures | None, decision: Decision
) -> str:
    """The card that travels with the bundle, written from the run's own facts."""
    corpus = checked.corpus
    articles, held = corpus.articles.articles, corpus.test.articles
    lines = [
        f"# themewire {config.tagger.kind} tagger",
        "",
        "Tags news stories in English with the themes below; a story may have none, one or several.",
        "",
        "## Themes",
        *(
            f"- `{theme.name}`: {theme.definition or theme.title or theme.name}"
            for theme in corpus.taxonomy.themes
        ),
        "",
        "## Data",
        f"- learned from {len(articles)} labelled articles (sha256 {corpus.articles.digest})",
        f"- {sum(not a.themes for a in articles)} of them have no theme",
        f"- tested on {len(held)} articles held back (sha256 {corpus.test.digest or '–'})",
        "",
        "## Figures",
        "| | macro-F1 | 95 % interval | micro-F1 | 95 % interval | exact match |",
        "| --- | --- | --- | --- | --- | --- |",
        _card_row("cross-validation", cv),
        *([_card_row("test", test)] if test else []),
        "",
        "| theme | precision | recall | F1 | articles |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {t.name} | {t.precision:.3f} | {t.recall:.3f} | {t.f1:.3f} | {t.support} |"
            for t in (test or cv).themes
        ),
        "",
        "## Probabilities and review",
        "| | calibration error | were it perfect | at most (95 %) | Brier score |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {what} | {c.ece:.3f} | {c.perfect:.3f} | {c.perfect_high:.3f} | {c.brier:.3f} |"
            for what, c in [
                ("cross-validation", cv.calibration),
                *([("test", test.calibration)] if test else []),
            ]
        ),
        "",
        _promise(decision),
        "",
        "## Intended use and limits",
        "- For sorting news for people who read it; not for decisions about persons.",
        "- Learned from English copy; other languages are outside what was measured.",
        "- A probability says how often such a score was right on the articles it learned from; "
        + "where themes are rarer, it promises too much: `themewire decide --adapt` sets that right.",
        "- Stories marked for review should be read by a person.",
        "",
    ]
    return "\n".join(lines)


def _promise(decision: Decision) -> str:
    promise = decision.guarantee
    if promise is None:
        return "No recall is promised for tags and review together."
    return (
        f"Of a story's themes, tags and review together find at least {promise.recall:.0%} on average, with a "
        f"confidence of {promise.confidence:.0%}, for stories like the labelled ones."
    )


def _card_row(what: str, figures: Figures) -> str:
    macro, micro = figures.macro_interval, figures.micro_interval
    return (
        f"| {what} | {figures.macro_f1:.3f} | {macro[0]:.3f}-{macro[1]:.3f} "
        f"| {figures.micro_f1:.3f} | {micro[0]:.3f}-{micro[1]:.3f} | {figures.exact_match:.3f} |"
    )
