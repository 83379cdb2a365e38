"""Can a linear classifier tell the project's articles from real stories, and by which words?

python tests/benchmarks/tell_apart.py DATA/real_news/dev.jsonl

A measurement of the corpus: what gives its articles away is what a tagger may learn by mistake.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from themewire.articles import Article, read_articles
from themewire.config import load_config
from themewire.text import Story


def opening(article: Article) -> str:
    """The first eight words of the text."""
    return " ".join(article.text.split()[:8])


def shape(article: Article) -> list[float]:
    """Habits that no word shows: lengths of sentences and paragraphs, capitals, digits, quotes."""
    text = article.whole
    sentences = [len(sentence.text.split()) for sentence in Story(article).sentences] or [0]
    paragraphs = [len(part.split()) for part in article.text.split("\n") if part.strip()] or [0]
    count = max(1, len(text))
    return [
        float(np.mean(sentences)), float(np.std(sentences)), float(np.mean(paragraphs)),
        sum(c.isupper() for c in text) / count, sum(c.isdigit() for c in text) / count,
        sum(c in "\"“”" for c in text) / count, float(len(text.split())),
    ]  # fmt: skip


SHAPE = (
    "words a sentence",
    "their spread",
    "words a paragraph",
    "capitals",
    "digits",
    "quotes",
    "words",
)


def main() -> None:
    """Print how well the two are told apart (area under the ROC curve) and what tells them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("real", type=Path, help="real stories, JSONL")
    parser.add_argument("--articles", default="data/articles", help="the project's articles")
    parser.add_argument(
        "--batches", default="", help="only ids that begin with one of these, a,b,c"
    )
    given = parser.parse_args()
    taxonomy = load_config(Path("configs/default.toml")).load_taxonomy()
    ours = read_articles([given.articles], taxonomy).articles
    if given.batches:
        ours = [
            article for article in ours if article.id.startswith(tuple(given.batches.split(",")))
        ]
    real = read_articles([given.real], taxonomy).articles
    target = np.array([1] * len(ours) + [0] * len(real))
    folds = StratifiedKFold(5, shuffle=True, random_state=20)
    print(f"{len(ours)} articles, {len(real)} real stories")
    for name, texts in (
        ("whole text", [article.whole for article in [*ours, *real]]),
        ("opening", [opening(article) for article in [*ours, *real]]),
    ):
        model = make_pipeline(
            TfidfVectorizer(sublinear_tf=True, min_df=5, ngram_range=(1, 2)),
            LogisticRegression(C=10, class_weight="balanced", max_iter=1000),
        )
        auc = cross_val_score(model, texts, target, cv=folds, scoring="roc_auc").mean()
        model.fit(texts, target)
        words = model[0].get_feature_names_out()
        order = np.argsort(model[1].coef_[0])
        print(f"\n{name}: area under the ROC curve {auc:.3f}")
        print("  ours:", ", ".join(words[order[::-1][:30]]))
        print("  real:", ", ".join(words[order[:30]]))
    shapes = np.array([shape(article) for article in [*ours, *real]])
    print("\nhabit: median of ours, of the real ones")
    for column, name in enumerate(SHAPE):
        median = [np.median(shapes[target == kind, column]) for kind in (1, 0)]
        print(f"  {name}: {median[0]:.3g}, {median[1]:.3g}")


if __name__ == "__main__":
    main()
