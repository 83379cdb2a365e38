"""The job: read, check, cross-validate, decide, train, measure, keep."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from themewire import tracking
from themewire.articles import Reading, read_articles
from themewire.bundle import Bundle, HeldOut, install_bundle, load_bundle, save_bundle
from themewire.checks import CheckResult, check_corpus
from themewire.config import Config, FinetuneConfig, LinearConfig, StackConfig
from themewire.crossfit import FoldDone, cross_validate, fit_finally, is_held_out
from themewire.decisions import Decision, TagArray, cross_fitted, learn_decision
from themewire.errors import OutsideError, UsageError
from themewire.evaluation import Measured, measure_bundle
from themewire.metrics import Figures, measure
from themewire.page import report_page
from themewire.promotion import Verdict, judge
from themewire.report import (
    corpus_picture,
    error_rows,
    model_card,
    precision_recall_picture,
    reliability_picture,
    theme_figures_picture,
    theme_rows,
)
from themewire.taggers import assemble, members
from themewire.taggers.base import Listener, Tagger
from themewire.taggers.cascade import Cuts, Gate, fit_bag, learn_cuts
from themewire.text import stories

logger = logging.getLogger(__name__)

EXAMPLE_ARTICLES = 2
KEPT_TAGS = 0.99
"""Share of a full reading's tags that a cascade must keep."""
UNLOGGED = Path("models/unlogged")
"""Where a model is kept whose run could not be logged."""


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind."""

    run_id: str
    run_name: str
    experiment_id: str
    cv: Measured
    test: Measured | None
    version: str | None
    """`NAME/NUMBER` of the registered version; None where nothing is registered."""
    verdict: Verdict | None
    champion: Path | None
    """The folder of the promoted bundle; None where it was not promoted or none is kept."""
    seconds: float


def train(config: Config, checked: CheckResult | None = None) -> TrainResult:
    """Train, measure and keep a tagger as the configuration says.

    `checked` spares a second look at a corpus that was checked already.

    Raises:
        InputRefused: bad records or leaks; nothing is trained then.
        UsageError: a configuration that cannot work.
        OutsideError: the tracking store cannot be reached.
    """
    start = time.perf_counter()
    checked = checked or check_corpus(config)
    checked.require_sound()
    for leak in checked.leaks:
        logger.warning("%s", leak)
    kind = config.tagger.kind
    with tracking.open_run(config, run_name(config)) as run:
        with tracking.outside_errors("tracking store"):
            run.link_interrupted(job_digest(config, checked))
        run.log_articles(checked.corpus.articles, "articles", "training")
        if checked.corpus.test.articles:
            run.log_articles(checked.corpus.test, "test", "test")
        run.log_picture(corpus_picture(checked.corpus), "corpus")
        run.log_text("\n\n".join(table.markdown() for table in checked.tables), "corpus.md")
        logger.info("training %s on %d articles", kind, len(checked.corpus.articles.articles))
        cv, decision, tagger, held_out = _learn(config, checked, run)
        with tempfile.TemporaryDirectory(prefix="themewire-") as scratch:
            folder = Path(scratch) / "bundle"
            draft = Bundle(tagger, decision, checked.corpus.taxonomy, config, folder, "")
            test = _measure_test(draft, checked, config)
            tested = test.figures if test else None
            card = model_card(config, checked, cv.figures, tested, decision)
            digest = save_bundle(folder, tagger=tagger, decision=decision,
                                 taxonomy=checked.corpus.taxonomy, config=config, card=card,
                                 held_out=held_out)  # fmt: skip
            example = checked.corpus.articles.articles[:EXAMPLE_ARTICLES]
            model_uri = run.log_bundle(folder, example)
            _log_measured(run, cv, "cv", "articles", decision)
            if test is not None:
                _log_measured(run, test, "test", "test", decision)
            run.log_text(card, "card.md")
            run.set_tags({"mlflow.note.content": _summary(cv.figures, tested)})
            kept = _keep(config, test, run, folder, digest, model_uri)
        seconds = time.perf_counter() - start
        run.log_metrics({"seconds": seconds}, "articles")
    return TrainResult(run.id, run.name, run.experiment_id, cv, test, *kept, seconds)


def _summary(cv: Figures, test: Figures | None) -> str:
    """What the run's page in MLflow opens with."""
    parts = [
        f"{what}: macro-F1 {figures.macro_f1:.3f} "
        f"({figures.macro_interval[0]:.3f} to {figures.macro_interval[1]:.3f})"
        for what, figures in (("cross-validation", cv), ("test", test))
        if figures is not None
    ]
    return (
        "; ".join(parts) + ". The reports (`…_report.html`) among the artifacts show every error."
    )


def run_name(config: Config) -> str:
    """What the run is called in the list of runs: the family and its settings that matter most."""
    parts = []
    for member in members(config.tagger):
        if isinstance(member, LinearConfig):
            parts.append(f"linear {member.model} C={member.c:g} 1-{member.ngrams} grams")
        else:
            layers = "+".join(map(str, member.layers))
            parts.append(f"{member.kind} {Path(member.encoder).name} layers {layers}")
    prefix = "stack: " if isinstance(config.tagger, StackConfig) else ""
    return prefix + " & ".join(parts)


def _learn(
    config: Config, checked: CheckResult, run: tracking.Tracked
) -> tuple[Measured, Decision, Tagger, HeldOut]:
    """Cross-validate, learn the decision, and train on everything."""
    articles, taxonomy = checked.corpus.articles.articles, checked.corpus.taxonomy
    names, seed = taxonomy.names, config.split.seed
    batch = stories(articles)
    labels = taxonomy.label_array([article.themes for article in articles])
    if not labels.any():
        raise UsageError("data.articles: no article has a theme; label some first")
    fold_seconds: dict[int, float] = {}

    def on_fold(fold: FoldDone) -> None:
        fold_seconds[fold.number] = fold.seconds
        logger.info("fold %d of %d: %.1f s", fold.number, config.split.folds, fold.seconds)

    found = cross_validate(
        config, batch, labels, checked.groups, names, on_fold, _under(run, "held_out"), cascade=True
    )
    truth, scored = labels[found.rows], [batch[i] for i in found.rows.tolist()]
    probabilities, tags = cross_fitted(found.scores, truth, found.folds, names, config.decision)
    if is_held_out(config):
        logger.info("measured on the fold held out: %d articles", len(scored))
    for fold, seconds in fold_seconds.items():
        held = np.full(len(scored), True) if is_held_out(config) else found.folds == fold - 1
        figures = measure(truth[held], probabilities[held], tags[held], names, seed)
        run.log_fold(fold, figures.flat("fold/"), seconds)
    figures = measure(
        truth, probabilities, tags, names, seed, checked.groups[found.rows], found.evidence
    )
    decision = learn_decision(found.scores, truth, names, config.decision, config.review)
    families = members(config.tagger)
    fitted, bag = found.fitted[-1], found.bag
    if all(member.refit for member in families if isinstance(member, FinetuneConfig)):
        fitted = fit_finally(config, found, batch, labels, names, _under(run, "final"))
        if isinstance(config.tagger, StackConfig):
            bag = fit_bag(batch, labels, names, config.tagger.sentences, seed)
    gate = None
    if found.combiner is not None and bag is not None:
        linear, sentences = found.parts
        cuts = learn_cuts(
            linear,
            sentences,
            found.bags,
            found.sharpness,
            found.combiner,
            lambda scores: decision.tags(decision.probabilities(scores)),
            KEPT_TAGS,
            config.review.confidence,
        )
        if cuts is None:
            logger.info("no cascade: too few tags to say which sentences may stay unread")
        else:
            gate = Gate(bag, cuts.weights, cuts.cut, cuts.floor)
            _log_cascade(run, cuts, tags)
    tagger = assemble(fitted, found.combiner, gate, cascade=config.predict.cascade)
    held_out = HeldOut.of(scored, found.scores, truth)
    measured = Measured(scored, truth, probabilities, tags, found.sentences, figures)
    return measured, decision, tagger, held_out


def _log_cascade(run: tracking.Tracked, cuts: Cuts, tags: TagArray) -> None:
    figures = {
        "cascade/read": float(np.concatenate(cuts.read).mean()),
        "cascade/stories_read": float(np.mean([own.any() for own in cuts.read])),
    }
    tagless = np.flatnonzero(~tags.any(axis=1)).tolist()
    if tagless:
        unread = np.concatenate([cuts.read[row] for row in tagless])
        figures["cascade/read_without_tag"] = float(unread.mean())
    run.log_metrics(figures, "articles")


def _under(run: tracking.Tracked, prefix: str) -> Listener:
    """Logs the figures of steps under a name of their own."""

    def listen(figures: Mapping[str, float], step: int) -> None:
        run.log_step({f"{prefix}/{name}": value for name, value in figures.items()}, step)

    return listen


def job_digest(config: Config, checked: CheckResult) -> str:
    """What is trained on what: the same for a training that is started again."""
    kept = config.model_dump(mode="json", include={"tagger", "split", "checks", "tracking"})
    data = [checked.corpus.articles.digest, checked.corpus.test.digest]
    return hashlib.sha256(json.dumps([kept, data]).encode()).hexdigest()[:16]


def _measure_test(draft: Bundle, checked: CheckResult, config: Config) -> Measured | None:
    articles = checked.corpus.test.articles
    return measure_bundle(draft, articles, config.split.seed) if articles else None


def _log_measured(
    run: tracking.Tracked, measured: Measured, prefix: str, data: str, decision: Decision
) -> None:
    import pandas as pd

    what = {"cv": "cross-validation", "test": "test"}[prefix]
    names = [theme.theme for theme in decision.themes]
    run.log_metrics(measured.figures.flat(f"{prefix}/"), data)
    run.log_table(pd.DataFrame(theme_rows(measured.figures, decision)), f"{prefix}_themes")
    wrong = error_rows(
        measured.stories, measured.labels, measured.probabilities, measured.tags, names
    )
    run.log_table(pd.DataFrame(wrong), f"{prefix}_errors")
    run.log_picture(theme_figures_picture(measured.figures, what), f"{prefix}_themes")
    run.log_picture(
        reliability_picture(measured.labels, measured.probabilities, names, what),
        f"{prefix}_reliability",
    )
    page = report_page(measured, decision, f"{run.name}: {what}", f"run {run.id}")
    run.log_text(page, f"{prefix}_report.html")
    run.log_picture(
        precision_recall_picture(
            measured.labels, measured.probabilities, decision, names, measured.figures, what
        ),
        f"{prefix}_precision_recall",
    )


def _keep(
    config: Config,
    test: Measured | None,
    run: tracking.Tracked,
    folder: Path,
    digest: str,
    model_uri: str | None,
) -> tuple[str | None, Verdict | None, Path | None]:
    """Register the model, put it through the gate, and install it where it is promoted.

    Raises:
        OutsideError: the store is gone; the bundle is kept, and the error says where.
    """
    if model_uri is None:
        raise OutsideError(_aside(run.name, folder, run.lost))
    if not config.tracking.registered_model:
        return None, None, _install(config, folder)
    try:
        return _register(config, test, run, folder, digest, model_uri)
    except OutsideError as error:
        raise OutsideError(_aside(run.name, folder, str(error))) from error


def _aside(name: str, folder: Path, reason: str) -> str:
    """Keep a bundle that could not be logged; says where, and what to do."""
    target = UNLOGGED / re.sub(r"[^\w.=-]+", "-", name).strip("-")
    install_bundle(folder, target)
    return (
        f"{reason}; the model is kept in {target}: `themewire log {target}` when the store answers"
    )


def log_later(folder: Path) -> tuple[str, str | None, Verdict | None, Path | None]:
    """Log a bundle that was kept while the store was gone: a run, its test figures, and the gate.

    Returns the run's id, the version, the gate's verdict, and where the champion lies.

    Raises:
        UsageError: no bundle there.
        OutsideError: the store is still gone.
    """
    bundle = load_bundle(folder)
    config, card = bundle.config, (folder / "card.md").read_text(encoding="utf-8")
    test = read_articles(config.data.test, bundle.taxonomy) if config.data.test else Reading()
    with tracking.open_run(config, run_name(config)) as run:
        run.set_tags({"logged": "later"})
        if test.articles:
            run.log_articles(test, "test", "test")
        model_uri = run.log_bundle(folder, test.articles[:EXAMPLE_ARTICLES])
        measured = None
        if test.articles:
            measured = measure_bundle(bundle, test.articles, config.split.seed)
            _log_measured(run, measured, "test", "test", bundle.decision)
        run.log_text(card, "card.md")
        return run.id, *_keep(config, measured, run, folder, bundle.digest, model_uri)


def _register(
    config: Config,
    test: Measured | None,
    run: tracking.Tracked,
    folder: Path,
    digest: str,
    model_uri: str,
) -> tuple[str | None, Verdict | None, Path | None]:
    # two trainings at once: the second is judged against the first
    with tracking.store_lock(), tracking.outside_errors("model registry"):
        name = config.tracking.registered_model
        current = tracking.aliased_version(name, tracking.CHAMPION)
        version = run.register(model_uri, digest)
        champion, verdict = None, None
        if current is not None:
            there, _ = tracking.fetch_bundle(f"models:/{current}")
            try:
                champion = load_bundle(there)
            except UsageError as error:
                # nobody can predict with it either
                verdict = Verdict(True, f"promoted: the champion cannot be opened: {error}")
        verdict = verdict or judge(
            load_bundle(folder),
            champion,
            test,
            config.split.seed,
            config.checks.near_duplicate,
        )
        alias = tracking.CHAMPION if verdict.promote else tracking.CHALLENGER
        tracking.set_alias(version, alias, verdict.reason)
        run.set_tags({"gate": verdict.reason, "version": str(version)})
        kept = _install(config, folder) if verdict.promote else None
    return str(version), verdict, kept


def _install(config: Config, folder: Path) -> Path | None:
    if not config.output.champion:
        return None
    target = Path(config.output.champion)
    install_bundle(folder, target)
    return target
