"""Everything MLflow: the store, one run a training, the registry, and fetching a bundle back."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

# MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK", "true")
# a server that does not answer is given up after some ten seconds, not after minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")

import mlflow
import mlflow.data
import psutil
from filelock import FileLock
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Schema

from themewire.articles import Article, Reading
from themewire.config import Config
from themewire.errors import OutsideError, UsageError
from themewire.predict import LOCAL_STORE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

LOCAL_ARTIFACTS = "mlartifacts"
LOCK = ".themewire/store.lock"
CHAMPION = "champion"
CHALLENGER = "challenger"
REPLACED = "replaced"
"""Tag on a version: the number of the champion before it."""
SERVING_FILE = Path(__file__).with_name("serving.py")
SERVING_PACKAGES = ("themewire", "numpy", "onnxruntime", "pydantic", "safetensors", "sentencex",
                    "tokenizers", "typer", "rich", "pandas", "mlflow")  # fmt: skip
TRAINING_PACKAGES = (*SERVING_PACKAGES, "scikit-learn", "torch", "transformers", "datasets")
EXPERIMENT_NOTE = (
    "Each run is one training of themewire. `cv/…` are cross-validated figures (choose by these), "
    "`test/…` are on the articles held back (believe these), `fold/…` stand on the child runs."
)
MODEL_NOTE = (
    "Tags news stories by theme. `champion` is what `themewire predict` uses; `challenger` is the "
    "latest version that did not pass the gate; the tag `gate` on a version says why."
)
SIGNATURE = ModelSignature(
    inputs=Schema(
        [ColSpec(DataType.string, name, required=False) for name in ("id", "title", "text")]
    ),
    outputs=Schema(
        [
            ColSpec(DataType.string, "id"),
            ColSpec(Array(DataType.string), "themes"),
            ColSpec(Map(DataType.double), "probabilities"),
            ColSpec(AnyType(), "evidence"),
            ColSpec(DataType.boolean, "review"),
            ColSpec(Array(DataType.string), "review_reasons"),
            ColSpec(DataType.string, "model"),
        ]
    ),
)


@contextmanager
def store_lock() -> Iterator[None]:
    """Held while the store is made, and from registering a version to giving it its alias."""
    Path(LOCK).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(LOCK):
        yield


@contextmanager
def outside_errors(doing: str) -> Iterator[None]:
    """Turns what MLflow and its store raise into one line."""
    try:
        yield
    except (MlflowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OutsideError(f"{doing}: {mlflow.get_tracking_uri()}: {reason}") from error


def use_store() -> str:
    """Point MLflow at `MLFLOW_TRACKING_URI`, else at the SQLite file in the current folder."""
    # in full, for MLflow keeps one store for each address it has seen
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(LOCAL_STORE).resolve()}"
    mlflow.set_tracking_uri(uri)
    # making a store's tables is not safe to do twice at a time
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return uri


def _experiment_id(name: str, uri: str) -> str:
    with store_lock(), outside_errors("tracking store"):
        client = MlflowClient()
        found = client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise UsageError(
                    f"tracking.experiment: {name!r} was deleted; restore it in MLflow or name another"
                )
            return str(found.experiment_id)
        local = uri.startswith("sqlite:")
        location = Path(LOCAL_ARTIFACTS).resolve().as_uri() if local else None
        tags = {"mlflow.note.content": EXPERIMENT_NOTE}
        return str(client.create_experiment(name, artifact_location=location, tags=tags))


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """The versions of the installed ones among these packages."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the current folder, with `-dirty` where files have changed; None outside git."""
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],  # noqa: S607
            capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() or None


@dataclass(frozen=True)
class Version:
    """A registered model version."""

    name: str
    number: str

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


@dataclass
class Tracked:
    """An open run; every method writes to it.

    A store that stops answering does not stop a training: what can no longer be written is let go,
    and `lost` says so.
    """

    run: MlflowRun
    config: Config
    datasets: dict[str, Any]
    model_id: str | None = None
    lost: str = ""
    """Why the store was given up; empty as long as it answers."""

    def _write(self, action: Callable[[], object]) -> None:
        """Write one thing; after a failure nothing more is tried."""
        if self.lost:
            return
        try:
            action()
        except (MlflowException, OSError) as error:
            self.lost = " ".join(str(error).split())[:200]
            logger.warning(
                "%s: no longer answers (%s); the training goes on without it",
                mlflow.get_tracking_uri(), self.lost,
            )  # fmt: skip

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self.run.info.run_id)

    @property
    def name(self) -> str:
        """The run's name in the UI."""
        return str(self.run.info.run_name)

    @property
    def experiment_id(self) -> str:
        """The id of the experiment it stands in."""
        return str(self.run.info.experiment_id)

    def log_config(self) -> None:
        """The resolved configuration, as parameters and whole, and the packages' versions."""

        def write() -> None:
            mlflow.log_params(self.config.flat())
            mlflow.log_dict(json.loads(self.config.to_json()), "config.json")
            mlflow.log_dict(package_versions(TRAINING_PACKAGES), "versions.json")

        self._write(write)

    def log_articles(self, reading: Reading, name: str, context: str) -> None:
        """Log a data set with its digest; `context` is 'training' or 'test'."""
        data = mlflow.data.from_huggingface(
            _with_filled_columns(reading.articles), name=name, digest=reading.digest[:36]
        )
        self.datasets[name] = data
        self._write(lambda: mlflow.log_input(data, context=context))

    def log_fold(self, fold: int, figures: Mapping[str, float], seconds: float) -> None:
        """One child run a fold."""
        self._write_child(f"fold {fold}", {"fold": fold}, {**figures, "fold/seconds": seconds})

    def _write_child(
        self, name: str, settings: Mapping[str, Any], figures: Mapping[str, float]
    ) -> None:
        def write() -> None:
            with mlflow.start_run(
                experiment_id=self.experiment_id,
                run_name=name,
                nested=True,
                log_system_metrics=False,
            ):
                mlflow.log_params(dict(settings))
                mlflow.log_metrics(dict(figures))

        self._write(write)

    def log_trial(
        self, number: int, settings: Mapping[str, Any], figures: Mapping[str, float]
    ) -> None:
        """One child run a trial of a sweep."""
        self._write_child(f"trial {number}", settings, figures)

    def log_metrics(self, figures: Mapping[str, float], data: str) -> None:
        """Figures of the logged model on a data set named before."""
        self._write(
            lambda: mlflow.log_metrics(
                dict(figures), model_id=self.model_id, dataset=self.datasets.get(data)
            )
        )

    def log_step(self, figures: Mapping[str, float], step: int) -> None:
        """Figures of a step of learning, a curve in the UI."""
        self._write(lambda: mlflow.log_metrics(dict(figures), step=step))

    def link_interrupted(self, job: str) -> None:
        """Mark this run's job, and end the runs of the same job whose process was killed.

        `job` says what is trained on what: the same job started again goes on from what an
        interrupted run left, and the two runs point at each other.
        """
        client = MlflowClient()
        left = client.search_runs(
            [self.experiment_id],
            f"attributes.status = 'RUNNING' AND tags.job = '{job}' AND tags.host = '{platform.node()}'",
        )
        for other in left:
            process = other.data.tags.get("process", "")
            if process.isdigit() and psutil.pid_exists(int(process)):
                continue
            client.set_tag(other.info.run_id, "resumed_by", self.id)
            client.set_terminated(other.info.run_id, "KILLED")
            logger.info("the run %s was killed; this one takes its place", other.info.run_name)
            self.set_tags({"resumes": other.info.run_id})
        self.set_tags({"job": job, "host": platform.node(), "process": str(os.getpid())})

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """A table that the UI shows."""
        self._write(lambda: mlflow.log_table(table, f"tables/{name}.json"))

    def log_picture(self, picture: Figure, name: str) -> None:
        """A picture that the UI shows."""
        self._write(lambda: mlflow.log_figure(picture, f"pictures/{name}.png"))

    def log_text(self, text: str, name: str) -> None:
        """A text file beside the run."""
        self._write(lambda: mlflow.log_text(text, name))

    def log_bundle(self, folder: Path, example: Sequence[Article]) -> str | None:
        """Log the model: code that carries the bundle as its artifact.

        Returns the model's address; None where the store was lost.
        """
        self._write(lambda: self._log_bundle(folder, example))
        return f"models:/{self.model_id}" if self.model_id and not self.lost else None

    def _log_bundle(self, folder: Path, example: Sequence[Article]) -> None:
        import pandas as pd

        rows = [{"title": a.title, "text": a.text} for a in example]
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(SERVING_FILE),
            artifacts={"bundle": str(folder)},
            pip_requirements=[f"{n}=={v}" for n, v in package_versions(SERVING_PACKAGES).items()],
            signature=SIGNATURE,
            input_example=pd.DataFrame(rows),
        )
        self.model_id = str(info.model_id)

    def register(self, model_uri: str, digest: str) -> Version:
        """Make the logged model a version of the registered model; call under `store_lock`."""
        name = self.config.tracking.registered_model
        client = MlflowClient()
        try:
            client.create_registered_model(name, description=MODEL_NOTE)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.create_model_version(
            name,
            source=model_uri,
            run_id=self.id,
            model_id=self.model_id,
            tags={"manifest_sha256": digest, "tagger": self.config.tagger.kind},
            description=f"{self.config.tagger.kind}, trained by the run {self.name}",
        )
        return Version(name, str(found.version))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags on the run."""
        self._write(lambda: mlflow.set_tags(dict(tags)))


@contextmanager
def open_run(config: Config, name: str) -> Iterator[Tracked]:
    """Start a run in the configured experiment; it ends FAILED or KILLED if the block does.

    Raises:
        OutsideError: the store cannot be reached.
    """
    uri = use_store()
    experiment = _experiment_id(config.tracking.experiment, uri)
    tags = {"tagger": config.tagger.kind, "python": platform.python_version()}
    commit = git_commit()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    with outside_errors("tracking store"):
        run = mlflow.start_run(
            experiment_id=experiment, run_name=name, tags=tags, log_system_metrics=True
        )
    tracked = Tracked(run, config, {})
    status = "FAILED"
    try:
        tracked.log_config()
        yield tracked
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        # a store that is gone cannot be told that the run has ended
        with suppress(MlflowException, OSError):
            mlflow.end_run(status)


def article_dataset(articles: Sequence[Article]) -> Any:
    """The articles as a `datasets.Dataset` with declared features; evidence as theme/sentence rows."""
    from datasets import Dataset, Features, List, Value

    text = Value("string")
    features = Features(
        {
            "id": text,
            "title": text,
            "text": text,
            "themes": List(text),
            "evidence": List({"theme": text, "sentence": text}),
            "genre": text,
            "published": text,
            "countries": List(text),
            "source": text,
        }
    )
    rows = [
        article.model_dump(mode="json")
        | {
            "evidence": [
                {"theme": theme, "sentence": sentence}
                for theme, sentences in article.evidence.items()
                for sentence in sentences
            ]
        }
        for article in articles
    ]
    return Dataset.from_list(rows, features=features)


def _with_filled_columns(articles: Sequence[Article]) -> Any:
    """The dataset without the columns that are empty throughout, whose type MLflow cannot infer."""
    data = article_dataset(articles)
    return data.select_columns([name for name in data.column_names if any(data[name])])


def aliased_version(name: str, alias: str) -> Version | None:
    """The version an alias stands for; None where there is none."""
    try:
        found = MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return Version(name, str(found.version))


def set_alias(found: Version, alias: str, reason: str) -> None:
    """Point an alias at a version, say why on the version, and remember which champion it replaces."""
    before = aliased_version(found.name, alias)
    if alias == CHAMPION and before is not None and before != found:
        MlflowClient().set_model_version_tag(found.name, found.number, REPLACED, before.number)
    move_alias(found, alias, reason)


def move_alias(found: Version, alias: str, reason: str) -> None:
    """Point an alias at a version and say why on the version."""
    client = MlflowClient()
    client.set_registered_model_alias(found.name, alias, found.number)
    client.set_model_version_tag(found.name, found.number, "gate", reason)


def replaced_by(found: Version) -> str | None:
    """The number of the version that this one took the place of; None for the first."""
    version = MlflowClient().get_model_version(found.name, found.number)
    number = version.tags.get(REPLACED)
    return None if number is None else str(number)


def fetch_bundle(address: str) -> tuple[Path, str]:
    """The local folder of the bundle that a model address carries, and the model's name.

    Args:
        address: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/ID/model`.

    Raises:
        UsageError: no such model.
        OutsideError: the store cannot be reached.
    """
    use_store()
    name = address
    try:
        if address.startswith("models:/") and "@" in address:
            model, _, alias = address.removeprefix("models:/").partition("@")
            found = MlflowClient().get_model_version_by_alias(model, alias)
            name = f"{model}/{found.version}"
            address = f"models:/{name}"
        elif address.startswith("models:/"):
            name = address.removeprefix("models:/")
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=address))
    except MlflowException as error:
        reason = str(error).strip().splitlines()[0]
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise UsageError(f"{address}: no such model: {reason}") from error
        raise OutsideError(f"{address}: {reason}") from error
    except OSError as error:
        raise UsageError(f"{address}: the model's files are gone: {error}") from error
    bundles = sorted((folder / "artifacts").iterdir()) if (folder / "artifacts").is_dir() else []
    if len(bundles) != 1:
        raise UsageError(f"{address}: carries no bundle; give a model that themewire has trained")
    return bundles[0], name


def unneeded_runs() -> dict[str, str]:
    """Id and name of each run that can go: failed, killed or deleted, and without a registered version.

    Children go with their parents. A run that a registered version comes from stays, whatever its state.
    """
    use_store()
    client = MlflowClient()
    with outside_errors("tracking store"):
        kept = {str(version.run_id) for version in client.search_model_versions()}
        experiments = client.search_experiments(view_type=ViewType.ALL)
        homes = [str(experiment.experiment_id) for experiment in experiments]
        runs = list(_all_runs(client, homes))
    found: dict[str, str] = {}
    for run in runs:
        gone = run.info.lifecycle_stage == "deleted" or run.info.status in ("FAILED", "KILLED")
        if gone and run.info.run_id not in kept:
            found[str(run.info.run_id)] = str(run.info.run_name)
    for run in runs:
        if run.data.tags.get("mlflow.parentRunId") in found and run.info.run_id not in kept:
            found[str(run.info.run_id)] = str(run.info.run_name)
    return found


def _all_runs(client: MlflowClient, experiments: Sequence[str]) -> Iterator[MlflowRun]:
    token: str | None = None
    while True:
        found = client.search_runs(list(experiments), run_view_type=ViewType.ALL, page_token=token)
        yield from found
        token = found.token
        if not token:
            return


def delete_runs(run_ids: Sequence[str]) -> None:
    """Delete runs for good, with their artifacts."""
    from click.testing import CliRunner
    from mlflow.cli import gc

    client = MlflowClient()
    with outside_errors("tracking store"):
        for run_id in run_ids:
            if client.get_run(run_id).info.lifecycle_stage == "active":
                client.delete_run(run_id)
    uri = mlflow.get_tracking_uri()
    arguments = ["--run-ids", ",".join(run_ids), "--backend-store-uri", uri]
    # MLflow offers this as a command only
    done = CliRunner().invoke(gc, arguments)
    if done.exit_code:
        raise OutsideError(f"mlflow gc: {done.exception or done.output}")
