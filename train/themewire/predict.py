"""Tag stories with a bundle: the Python API and what the command reads and writes."""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from themewire.articles import Article, BadLine, Fault, story_record
from themewire.bundle import Bundle, load_bundle, unpack_bundle
from themewire.errors import InputRefused, UsageError, missing_extra
from themewire.inputs import Given
from themewire.text import Story, evidence_order, is_english

logger = logging.getLogger(__name__)

MODEL_VARIABLE = "THEMEWIRE_MODEL"
DEFAULT_MODEL = "models/champion"
LOCAL_STORE = "mlflow.db"
REGISTRY_URI = re.compile(r"^(models|runs):/")


@dataclass(frozen=True)
class EvidenceSentence:
    """A sentence that speaks for a tag: `record[field][start:end] == text`, in code points."""

    field: str
    text: str
    start: int
    end: int
    score: float
    """The sentence's own calibrated score: a probability, were it a story of its own."""


@dataclass(frozen=True)
class Prediction:
    """The tags of one story, with all that is known about them."""

    id: str
    themes: list[str]
    probabilities: dict[str, float]
    evidence: dict[str, list[EvidenceSentence]]
    review: bool
    review_reasons: list[str]
    model: str

    def to_dict(self) -> dict[str, Any]:
        """The output record, in the contract's order of keys."""
        return asdict(self)


class Predictor:
    """A loaded bundle that tags stories."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        self.bundle = bundle
        self.name = name
        """What the records call the model: name and version, or folder and manifest digest."""

    @property
    def themes(self) -> tuple[str, ...]:
        """The taxonomy's names, in order."""
        return self.bundle.taxonomy.names

    def predict(self, records: Iterable[Mapping[str, Any] | Article | str]) -> list[Prediction]:
        """Tag records with `title` and/or `text` (a plain string is a text).

        Raises:
            themewire.errors.InputRefused: a record with neither title nor text, named by position.
        """
        articles = []
        for position, record in enumerate(records):
            if isinstance(record, Article):
                article = record
            else:
                try:
                    article = story_record({"text": record} if isinstance(record, str) else record)
                except BadLine as bad:
                    raise InputRefused(f"record {position}: {bad.field}: {bad}") from bad
            articles.append(article)
        size = self.bundle.config.predict.batch
        return [
            found
            for start in range(0, len(articles), size)
            for found in self.predict_batch(articles[start : start + size])
        ]

    def predict_batch(self, articles: Sequence[Article]) -> list[Prediction]:
        """Tag sound articles, all in memory at once."""
        if not articles:
            return []
        decision, names = self.bundle.decision, self.themes
        batch = [Story(article) for article in articles]
        scan = self.bundle.tagger.scan(batch)
        probabilities = decision.probabilities(scan.scores)
        tags = decision.tags(probabilities)
        tagged: list[int] = np.flatnonzero(tags.any(axis=1)).tolist()
        sentences = dict(zip(tagged, scan.sentence_scores(tagged), strict=True))
        results = []
        for row, story in enumerate(batch):
            columns: list[int] = np.flatnonzero(tags[row]).tolist()
            reasons = decision.review_reasons(probabilities[row])
            if not is_english(story.article.whole):
                reasons.append("not_english")
            results.append(
                Prediction(
                    id=story.article.id,
                    themes=[names[column] for column in columns],
                    probabilities={
                        name: round(float(value), 6)
                        for name, value in zip(names, probabilities[row], strict=True)
                    },
                    evidence=self._evidence(story, columns, sentences[row]) if columns else {},
                    review=bool(reasons),
                    review_reasons=reasons,
                    model=self.name,
                )
            )
        return results

    def _evidence(
        self, story: Story, columns: Sequence[int], scores: np.ndarray[Any, np.dtype[np.float32]]
    ) -> dict[str, list[EvidenceSentence]]:
        """The best sentences of each tag, best first."""
        found = {}
        for column in columns:
            best = evidence_order(story, scores[:, column])[: self.bundle.config.predict.evidence]
            calibrated = self.bundle.decision.themes[column](scores[best, column])
            found[self.themes[column]] = [
                EvidenceSentence(
                    field=story.sentences[row].field,
                    text=story.sentences[row].text,
                    start=story.sentences[row].start,
                    end=story.sentences[row].end,
                    score=round(float(score), 6),
                )
                for row, score in zip(best.tolist(), calibrated, strict=True)
            ]
        return found


def default_model() -> str:
    """The model used unless told otherwise: `$THEMEWIRE_MODEL`, else the champion's folder."""
    return os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL


def load_predictor(model: str | None = None) -> Predictor:
    """Load a model by folder, archive or registry address.

    Raises:
        UsageError: no model there, a refused bundle, or a registry address without the train extra.
    """
    given = model or default_model()
    if REGISTRY_URI.match(given):
        try:
            from themewire.tracking import fetch_bundle
        except ImportError as error:
            raise missing_extra("train", error) from error
        folder, name = fetch_bundle(given)
        return Predictor(load_bundle(folder), name)
    if Path(given).is_file():
        folder = Path(tempfile.mkdtemp(prefix="themewire-"))
        # the encoder is opened when it is first needed, so the files stay until the end
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        unpack_bundle(Path(given), folder)
        bundle = load_bundle(folder)
        return Predictor(bundle, f"{given}@sha256:{bundle.digest}")
    if not Path(given).is_dir():
        raise UsageError(
            f"{given}: no model there; run `make train` in a clone to make one, or name one with --model: "
            "a bundle's folder, or the archive that `make bundle` writes"
        )
    bundle = load_bundle(given)
    if given == DEFAULT_MODEL:
        _warn_if_apart(bundle)
    return Predictor(bundle, f"{bundle.folder}@sha256:{bundle.digest}")


def _warn_if_apart(bundle: Bundle) -> None:
    """Say so where the champion's folder is not the registry's champion.

    MLflow takes seconds to import, so its local store is read as the SQLite file it is; where that
    cannot be read, or the registry is elsewhere, nothing is said.
    """
    if os.environ.get("MLFLOW_TRACKING_URI") or not Path(LOCAL_STORE).is_file():
        return
    import sqlite3

    name = bundle.config.tracking.registered_model
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{LOCAL_STORE}?mode=ro", uri=True)) as store,
    ):
        found = store.execute(
            "SELECT alias.version, tag.value FROM registered_model_aliases AS alias "
            "JOIN model_version_tags AS tag ON tag.name = alias.name AND tag.version = alias.version "
            "WHERE alias.name = ? AND alias.alias = 'champion' AND tag.key = 'manifest_sha256'",
            [name],
        ).fetchone()
        if found is not None and found[1] != bundle.digest:
            logger.warning(
                "%s is not models:/%s@champion (version %s); `themewire promote %s` puts it there",
                DEFAULT_MODEL, name, found[0], found[0],
            )  # fmt: skip


def predict_stream(
    predictor: Predictor, stories: Iterable[Given | Fault]
) -> Iterator[tuple[Prediction, Given] | Fault]:
    """Tag stories batch by batch, in order; faults pass through in their place."""
    source = iter(stories)
    while window := list(islice(source, predictor.bundle.config.predict.batch)):
        sound = [item.article for item in window if isinstance(item, Given)]
        results = iter(predictor.predict_batch(sound))
        for item in window:
            yield (next(results), item) if isinstance(item, Given) else item
