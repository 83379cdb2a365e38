"""A model's life after training: two models side by side, promotion by hand, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from themewire import tracking
from themewire.articles import Article
from themewire.bundle import install_bundle
from themewire.errors import UsageError
from themewire.evaluation import Measured, measure_bundle
from themewire.metrics import interval, resampled_f1
from themewire.predict import Predictor
from themewire.splits import near_groups


@dataclass(frozen=True)
class Difference:
    """A story on which two models give other tags."""

    id: str
    title: str
    labelled: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same labelled stories."""

    first: Measured
    second: Measured
    micro: tuple[float, float]
    """95 % interval of the second's micro-F1 minus the first's, over the same resampled stories."""
    macro: tuple[float, float]
    """Likewise of macro-F1."""
    differences: tuple[Difference, ...]


def compare(
    first: Predictor, second: Predictor, articles: Sequence[Article], seed: int
) -> Comparison:
    """Measure two models on labelled articles.

    Raises:
        UsageError: models of different taxonomies, which are never compared.
    """
    if first.bundle.taxonomy != second.bundle.taxonomy:
        raise UsageError(f"{first.name} and {second.name} have different themes: not comparable")
    measured = [measure_bundle(each.bundle, articles, seed) for each in (first, second)]
    near = first.bundle.config.checks.near_duplicate
    groups = near_groups([article.whole for article in articles], near)
    resampled = [resampled_f1(each.labels, each.tags, seed, groups) for each in measured]
    micro, macro = (np.subtract(resampled[1][kind], resampled[0][kind]) for kind in (0, 1))
    rows = np.flatnonzero((measured[0].tags != measured[1].tags).any(axis=1)).tolist()
    names = first.themes

    def tags(each: Measured, row: int) -> tuple[str, ...]:
        return tuple(names[column] for column in np.flatnonzero(each.tags[row]).tolist())

    return Comparison(
        measured[0],
        measured[1],
        interval(micro),
        interval(macro),
        tuple(
            Difference(
                articles[row].id,
                articles[row].title,
                articles[row].themes,
                tags(measured[0], row),
                tags(measured[1], row),
            )
            for row in rows
        ),
    )


def promote(name: str, number: str, target: Path | None) -> tracking.Version:
    """Make a version the champion by hand, its bundle in `target` too.

    The bundle is fetched and checked first, so that alias and folder move together or not at all.

    Raises:
        UsageError: no such version, or a bundle that is refused.
    """
    version = tracking.Version(name, number)
    folder, _ = tracking.fetch_bundle(f"models:/{version}")
    with tracking.store_lock(), tracking.outside_errors("model registry"):
        if target is not None:
            install_bundle(folder, target)
        tracking.set_alias(version, tracking.CHAMPION, "promoted by hand")
    return version


def rollback(name: str, target: Path | None) -> tracking.Version:
    """Make the champion that was replaced last the champion again, its bundle in `target` too.

    Raises:
        UsageError: no champion, or none before it.
    """
    tracking.use_store()
    with tracking.outside_errors("model registry"):
        current = tracking.aliased_version(name, tracking.CHAMPION)
        if current is None:
            raise UsageError(f"models:/{name}@champion: no such model; nothing to roll back")
        before = tracking.replaced_by(current)
    if before is None:
        raise UsageError(f"models:/{current}: the first champion; there is none before it")
    version = tracking.Version(name, before)
    folder, _ = tracking.fetch_bundle(f"models:/{version}")
    with tracking.store_lock(), tracking.outside_errors("model registry"):
        if target is not None:
            install_bundle(folder, target)
        tracking.move_alias(
            version, tracking.CHAMPION, f"rolled back from version {current.number}"
        )
    return version
