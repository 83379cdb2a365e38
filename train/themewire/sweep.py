"""Search a family's settings by cross-validation: Optuna chooses, MLflow keeps every trial."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from themewire import tracking
from themewire.checks import CheckResult, check_corpus
from themewire.config import Config, make_config, merged
from themewire.crossfit import FoldDone, cross_validate
from themewire.decisions import cross_fitted
from themewire.errors import UsageError
from themewire.metrics import average_precisions, measure
from themewire.text import stories
from themewire.training import job_digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

STORE = "sweeps.db"
"""Trials, in the current folder: a sweep that was stopped goes on from them."""
STARTUP = 5
"""Trials drawn at random, and never stopped early, before the others are compared with them."""


def _linear(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "c": trial.suggest_float("c", 1.0, 100.0, log=True),
        "min_df": trial.suggest_int("min_df", 1, 4),
        "sentence_weight": trial.suggest_float("sentence_weight", 0.05, 1.0, log=True),
        "pool": trial.suggest_float("pool", 0.4, 0.95),
    }


def _encoder(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "hidden": trial.suggest_categorical("hidden", [128, 256, 512]),
        "dropout": trial.suggest_float("dropout", 0.1, 0.6),
        "epochs": trial.suggest_int("epochs", 6, 20),
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1e-1, log=True),
        "evidence_weight": trial.suggest_float("evidence_weight", 0.3, 6.0, log=True),
    }


def _finetune(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 2e-5, 2e-4, log=True),
        "head_learning_rate": trial.suggest_float("head_learning_rate", 1e-4, 3e-3, log=True),
        "frozen_layers": trial.suggest_int("frozen_layers", 0, 4),
        "epochs": trial.suggest_int("epochs", 2, 5),
        "evidence_weight": trial.suggest_float("evidence_weight", 0.3, 6.0, log=True),
    }


SPACES: dict[str, Callable[[optuna.Trial], dict[str, Any]]] = {
    "linear": _linear,
    "encoder": _encoder,
    "finetune": _finetune,
}
"""What is searched, for each family."""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found."""

    run_id: str
    trials: int
    best: Mapping[str, Any]
    """The settings of the best trial."""
    macro_f1: float
    """Its cross-validated macro-F1."""
    toml: str
    """A configuration file with these settings."""


def sweep(config: Config, trials: int, checked: CheckResult | None = None) -> SweepResult:
    """Run trials until there are `trials` finished ones of this family on these articles.

    Raises:
        UsageError: a family without a search space.
        InputRefused: bad records or leaks.
        OutsideError: the tracking store cannot be reached.
    """
    kind = config.tagger.kind
    if kind not in SPACES:
        raise UsageError(f"tagger.kind: {kind!r} is not swept: sweep {', '.join(SPACES)} apart")
    checked = checked or check_corpus(config)
    checked.require_sound()
    articles, taxonomy = checked.corpus.articles.articles, checked.corpus.taxonomy
    batch = stories(articles)
    labels = taxonomy.label_array([article.themes for article in articles])
    names, seed, job = taxonomy.names, config.split.seed, job_digest(config, checked)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=f"{kind} {job}",
        storage=f"sqlite:///{STORE}",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=1),
    )
    with tracking.open_run(config, f"sweep of {kind}") as run:
        run.link_interrupted(f"sweep {job}")
        run.log_articles(checked.corpus.articles, "articles", "training")

        def objective(trial: optuna.Trial) -> float:
            settings = SPACES[kind](trial)
            tables = merged(config.model_dump(mode="json"), {"tagger": settings})
            trial_config = make_config(tables, f"trial {trial.number}")
            seen: list[float] = []

            def on_fold(fold: FoldDone) -> None:
                (scores,) = fold.scores
                found = average_precisions(labels[fold.rows], scores)
                seen.append(float(np.mean([value for value in found if value is not None])))
                trial.report(float(np.mean(seen)), len(seen))
                if trial.should_prune():
                    raise optuna.TrialPruned

            found = cross_validate(trial_config, batch, labels, checked.groups, names, on_fold)
            truth = labels[found.rows]
            probabilities, tags = cross_fitted(
                found.scores, truth, found.folds, names, config.decision
            )
            figures = measure(
                truth, probabilities, tags, names, seed, checked.groups[found.rows], found.evidence
            )
            run.log_trial(trial.number, settings, figures.flat("cv/"))
            return figures.macro_f1

        def said(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            # the value of a trial that was stopped early is what it had come to by then
            whole = trial.state is optuna.trial.TrialState.COMPLETE
            value = f"macro-F1 {trial.value:.4f}" if whole else "stopped early"
            logger.info("trial %d: %s (%s)", trial.number, value, json.dumps(trial.params))

        done = len(_finished(study))
        if done:
            logger.info("going on from %d trials in %s", done, STORE)
        study.optimize(objective, n_trials=max(0, trials - done), callbacks=[said])
        best = study.best_trial
        run.log_metrics({"sweep/best_macro_f1": float(best.value or 0.0)}, "articles")
        run.log_picture(_history(study), "sweep")
        text = as_toml(config, best.params, float(best.value or 0.0), len(_finished(study)))
        run.log_text(text, "best.toml")
    return SweepResult(run.id, len(_finished(study)), best.params, float(best.value or 0.0), text)


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return list(study.get_trials(deepcopy=False, states=states))


def _history(study: optuna.Study) -> Figure:
    """Macro-F1 against each setting that was searched, a point a trial, the best one marked."""
    from matplotlib.figure import Figure

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    names = list(study.best_trial.params)
    picture = Figure(figsize=(3.2 * len(names), 3.2), layout="constrained")
    axes = picture.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        values = [trial.params[name] for trial in complete]
        axis.scatter(values, [trial.value for trial in complete], s=14)
        axis.scatter([study.best_trial.params[name]], [study.best_trial.value], color="crimson")
        if isinstance(values[0], float) and max(values) > 10 * min(values) > 0:
            axis.set_xscale("log")
        axis.set_xlabel(name)
    axes[0].set_ylabel("macro-F1, cross-validated")
    return picture


def as_toml(config: Config, best: Mapping[str, Any], macro_f1: float, trials: int) -> str:
    """A configuration file: whatever the swept one says, with the best settings of its family."""
    tables = config.model_dump(mode="json", exclude_defaults=True)
    # the kind first, for a reader; exclude_defaults drops it
    tables["tagger"] = {"kind": config.tagger.kind} | tables.get("tagger", {}) | dict(best)
    lines = [f"# The best of {trials} trials: macro-F1 {macro_f1:.4f}, cross-validated."]
    for section, values in tables.items():
        lines += ["", f"[{section}]"]
        lines += [
            f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()
        ]
    return "\n".join([*lines, ""])
