"""A model's life after training: two models side by side, promotion by hand, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from themewire import tracking
from themewire.articles import Article
from themewire.bundle import install_bundle, verify
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

    Raises:
        UsageError: no such version, or a bundle that is refused; nothing has changed then.
    """
    version = tracking.Version(name, number)
    _make_champion(version, target, lambda: tracking.set_alias(
        version, tracking.CHAMPION, "promoted by hand"))  # fmt: skip
    return version


def rollback(name: str, target: Path | None) -> tracking.Version:
    """Make the champion that was replaced last the champion again, its bundle in `target` too.

    Raises:
        UsageError: no champion, none before it, or a bundle that is refused; nothing has changed then.
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
    # what this version itself had replaced stays as it was, so that the way back goes on
    _make_champion(version, target, lambda: tracking.move_alias(
        version, tracking.CHAMPION, f"rolled back from version {current.number}"))  # fmt: skip
    return version


def _make_champion(
    version: tracking.Version, target: Path | None, point: Callable[[], None]
) -> None:
    """Check a version's bundle, point the alias at it, and install it."""
    folder, _ = tracking.fetch_bundle(f"models:/{version}")
    verify(folder)
    with tracking.store_lock(), tracking.outside_errors("model registry"):
        point()
        if target is not None:
            install_bundle(folder, target)
