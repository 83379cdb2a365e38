"""The report as one HTML page that needs nothing else: figures, pictures, slices, and every error."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from themewire.articles import Article
from themewire.decisions import Decision
from themewire.evaluation import Measured
from themewire.metrics import Figures, count, slice_f1
from themewire.report import precision_recall_picture, reliability_picture, theme_rows
from themewire.text import Story, evidence_order, evidence_spans, utf16

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENGTHS = (0, 100, 200, 400, 800)
"""Words from which a slice of lengths begins."""
SHOWN_VALUES = 15
"""Values of a slice that stand alone: the most frequent; the rest is one slice."""
SHOWN_PAIRS = 30


def report_page(measured: Measured, decision: Decision, title: str, origin: str) -> str:
    """A self-contained page about a model's answers on labelled stories.

    Stories' text reaches the page as data and is only ever set as text, so no markup in it comes alive.
    """
    names = [theme.theme for theme in decision.themes]
    errors, stories = _errors(measured, names)
    data = {
        "title": title,
        "origin": origin,
        "parts": list(_parts(measured, decision, names)),
        "errors": errors,
        "stories": stories,
    }
    # a story may hold "</script>"; as an escape it ends nothing
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
    template = files("themewire").joinpath("report.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", text)


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = ""
) -> dict[str, Any]:
    """A part of the page with a table; a column whose values are words is set to the left."""
    described = [
        {"name": name, "text": any(isinstance(row[place], str) for row in rows)}
        for place, name in enumerate(columns)
    ]
    return {"title": title, "note": note, "columns": described, "rows": [list(row) for row in rows]}


def _parts(
    measured: Measured, decision: Decision, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    figures = measured.figures
    yield _table(
        "Figures",
        ("figure", "value", "95 % from", "to"),
        _figure_rows(figures),
        "Intervals are bootstrapped over groups of near-duplicates.",
    )
    rows = theme_rows(figures, decision)
    yield _table("By theme", tuple(rows[0]), [tuple(row.values()) for row in rows])
    yield {
        "title": "Precision, recall and reliability",
        "note": "Left: each theme's curve, the dot being the decision taken. Right: what probabilities "
        "say against what is seen; on the line they mean what they say.",
        "pictures": [
            _picture(
                precision_recall_picture(
                    measured.labels, measured.probabilities, decision, names, figures, "all stories"
                ),
                "precision-recall curves",
            ),
            _picture(
                reliability_picture(measured.labels, measured.probabilities, names, "all stories"),
                "reliability diagram",
            ),
        ],
    }
    yield _table(
        "Calibration",
        ("theme", "calibration error", "were it perfect", "at most (95 %)", "Brier score"),
        [
            (name, found.ece, found.perfect, found.perfect_high, found.brier)
            for name, found in [
                *((theme.name, theme.calibration) for theme in figures.themes),
                ("mean", figures.calibration),
            ]
        ],
        "Expected calibration error on ten bins of equal mass, beside what a perfectly calibrated model "
        "would show at this number of stories.",
    )
    yield _review(measured, decision)
    yield _table(
        "Hits and misses",
        ("theme", "rightly given", "wrongly given", "missed", "rightly left out"),
        list(_confusion(measured, names)),
    )
    yield _together(measured, names)
    for title, value in SLICES.items():
        rows_of = list(_slices(measured, value))
        if len(rows_of) > 1:
            yield _table(
                f"By {title}",
                (title, "stories", "themes labelled", "micro-F1", "macro-F1", "exact match"),
                rows_of,
                "Macro-F1 is the mean over the themes that the slice has.",
            )


def _figure_rows(figures: Figures) -> list[tuple[object, ...]]:
    evidence = figures.evidence
    return [
        ("stories", figures.articles, None, None),
        ("macro-F1", figures.macro_f1, *figures.macro_interval),
        ("micro-F1", figures.micro_f1, *figures.micro_interval),
        ("micro precision", figures.micro_precision, None, None),
        ("micro recall", figures.micro_recall, None, None),
        ("mean average precision", figures.mean_average_precision, None, None),
        ("exact match", figures.exact_match, None, None),
        ("LRAP", figures.lrap, None, None),
        ("stories without a tag", figures.without_tag, None, None),
        ("evidence hit@1", evidence.hit_at_1 if evidence else None, None, None),
        ("evidence hit@3", evidence.hit_at_3 if evidence else None, None, None),
    ]


def _picture(figure: Figure, alt: str) -> dict[str, str]:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return {"png": base64.b64encode(buffer.getvalue()).decode("ascii"), "alt": alt}


def _review(measured: Measured, decision: Decision) -> dict[str, Any]:
    themed = measured.labels.any(axis=1)
    found = decision.found(measured.probabilities)
    recall = [
        float(found[row][measured.labels[row].astype(bool)].mean())
        for row in np.flatnonzero(themed)
    ]
    review = decision.in_review(measured.probabilities)
    wrong = (measured.labels.astype(bool) != measured.tags).any(axis=1)
    promise = decision.guarantee
    return _table(
        "Review",
        ("figure", "value"),
        [
            ("stories sent to review", float(review.mean())),
            ("of the stories with a wrong tag, sent to review", _share(review[wrong])),
            ("recall of tags and review together, a story with themes", _mean(recall)),
            ("recall promised", promise.recall if promise else None),
            ("with a confidence of", promise.confidence if promise else None),
        ],
        "The promise is for stories like the ones the decision was learned on.",
    )


def _share(values: npt.NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if len(values) else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _confusion(measured: Measured, names: Sequence[str]) -> Iterator[tuple[object, ...]]:
    counts = count(measured.labels, measured.tags)
    for column, name in enumerate(names):
        tp, fp, fn = (int(side[column]) for side in (counts.tp, counts.fp, counts.fn))
        yield name, tp, fp, fn, len(measured.labels) - tp - fp - fn


def _together(measured: Measured, names: Sequence[str]) -> dict[str, Any]:
    """Which labelled themes meet which wrongly given ones, the most frequent pairs."""
    pairs: Counter[tuple[str, str]] = Counter()
    truth = measured.labels.astype(bool)
    for row in np.flatnonzero((measured.tags & ~truth).any(axis=1)):
        wrong = [names[k] for k in np.flatnonzero(measured.tags[row] & ~truth[row]).tolist()]
        labelled = [names[k] for k in np.flatnonzero(truth[row]).tolist()] or ["(none)"]
        pairs.update((there, given) for there in labelled for given in wrong)
    rows = [(*pair, number) for pair, number in pairs.most_common(SHOWN_PAIRS)]
    return _table(
        "Confusion",
        ("labelled", "wrongly given beside it", "stories"),
        rows,
        "A story without themes stands as (none).",
    )


def _length(article: Article) -> str:
    words = len(article.whole.split())
    start = max(edge for edge in LENGTHS if edge <= words)
    place = LENGTHS.index(start)
    end = f"to {LENGTHS[place + 1] - 1}" if place + 1 < len(LENGTHS) else "and more"
    return f"{start} {end} words"


SLICES: Mapping[str, Callable[[Article], str | None]] = {
    "length": _length,
    "genre": lambda article: article.genre,
    "decade": lambda article: f"{article.published[:3]}0s" if article.published else None,
    "source": lambda article: article.source,
}


def _slices(
    measured: Measured, value_of: Callable[[Article], str | None]
) -> Iterator[tuple[object, ...]]:
    values = [value_of(story.article) or "(not given)" for story in measured.stories]
    frequent = {value for value, _ in Counter(values).most_common(SHOWN_VALUES)}
    values = [value if value in frequent else "(others)" for value in values]
    for value in sorted(set(values)):
        rows = np.array([other == value for other in values])
        micro, macro = slice_f1(measured.labels[rows], measured.tags[rows])
        exact = (measured.labels[rows].astype(bool) == measured.tags[rows]).all(axis=1).mean()
        yield value, int(rows.sum()), int(measured.labels[rows].sum()), micro, macro, float(exact)


def _errors(
    measured: Measured, names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Every wrong tag, surest first, and the stories they stand in."""
    places: dict[int, int] = {}
    stories: list[dict[str, str]] = []
    errors = []
    for row, column in np.argwhere(measured.labels.astype(bool) != measured.tags).tolist():
        story = measured.stories[row]
        if row not in places:
            places[row] = len(stories)
            stories.append(_story(story, measured, row, names))
        missed = bool(measured.labels[row, column])
        errors.append(
            {
                "id": story.article.id,
                "theme": names[column],
                "mistake": "missed" if missed else "wrongly given",
                "probability": round(float(measured.probabilities[row, column]), 3),
                "story": places[row],
                "spans": list(_spans(story, measured, row, column, names[column])),
            }
        )
    errors.sort(key=lambda e: -abs(float(str(e["probability"])) - (e["mistake"] == "missed")))
    return errors, stories


def _story(story: Story, measured: Measured, row: int, names: Sequence[str]) -> dict[str, str]:
    article = story.article
    tags = [names[k] for k in np.flatnonzero(measured.tags[row]).tolist()]
    about = [
        article.genre,
        article.published,
        article.source,
        f"labelled: {', '.join(article.themes) or 'none'}",
        f"tagged: {', '.join(tags) or 'none'}",
    ]
    return {
        "title": article.title,
        "text": article.text,
        "about": " · ".join(part for part in about if part),
    }


def _spans(
    story: Story, measured: Measured, row: int, column: int, name: str
) -> Iterator[dict[str, object]]:
    for field, start, end in evidence_spans(story, name):
        yield _span(story.article, field, start, end, "label")
    scores = measured.sentences[row]
    if len(scores):
        best = story.sentences[evidence_order(story, scores[:, column])[0]]
        yield _span(story.article, best.field, best.start, best.end, "model")


def _span(article: Article, field: str, start: int, end: int, kind: str) -> dict[str, object]:
    """Places as a browser counts them, in UTF-16 units."""
    text: str = getattr(article, field)
    return {"field": field, "start": utf16(text[:start]), "end": utf16(text[:end]), "kind": kind}
