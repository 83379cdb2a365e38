"""MLflow as its users meet it: a server that stops, what can be deleted, a served model."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import tiny_tables
from themewire import load, tracking, training
from themewire.config import make_config
from themewire.errors import OutsideError
from themewire.training import log_later, train


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def answers(url, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2) as found:  # noqa: S310
                return found.status == 200
        except OSError:
            time.sleep(0.3)
    return False


@contextmanager
def started(command, health, cwd):
    env = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert answers(health), "did not start"
        yield process
    finally:
        stop(process)


def stop(process):
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()


def server(port, cwd):
    command = [
        sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
        "--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", str(cwd / "served"),
    ]  # fmt: skip
    return started(command, f"http://127.0.0.1:{port}/health", cwd)


@pytest.mark.slow
def test_a_server_that_stops_in_mid_run_costs_no_model(workplace, monkeypatch, caplog):
    port, config = free_port(), make_config(tiny_tables(), "test")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(
        "mlflow.environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get", lambda: 1
    )
    with server(port, workplace) as process:
        first = train(config)
        assert first.version == "themewire/1"
        assert (
            load("models:/themewire@champion").bundle.digest
            == load("models/champion").bundle.digest
        )
        real = training.cross_validate

        def stopped_while_learning(*args, **kwargs):
            stop(process)
            return real(*args, **kwargs)

        monkeypatch.setattr(training, "cross_validate", stopped_while_learning)
        with pytest.raises(OutsideError, match="themewire log models/unlogged/linear"):
            train(config)
    assert "goes on without it" in caplog.text
    kept = next((workplace / "models/unlogged").iterdir())
    assert load(str(kept)).predict(["The rifles were sold abroad."])[0].themes == ["sale"]
    with server(port, workplace):
        _, version, verdict, _ = log_later(kept)
        assert version == "themewire/2"
        assert verdict is not None


def test_a_store_that_is_lost_is_given_up_once(workplace, monkeypatch, caplog):
    import mlflow
    from mlflow.exceptions import MlflowException

    calls = []

    def gone(*args, **kwargs):
        calls.append(args)
        raise MlflowException("the disk is full")

    with monkeypatch.context() as lost:
        lost.setattr(mlflow, "log_text", gone)
        with pytest.raises(
            OutsideError, match="the disk is full; the model is kept in models/unlogged"
        ):
            train(make_config(tiny_tables(), "test"))
    assert len(calls) == 1
    kept = next((workplace / "models/unlogged").iterdir())
    assert load(str(kept)).predict(["The rifles were sold abroad."])[0].themes == ["sale"]
    _, version, verdict, champion = log_later(kept)
    assert version == "themewire/1"
    assert verdict is not None
    assert verdict.promote
    assert champion is not None


def test_what_is_deleted_and_what_stays(workplace, tiny_config):
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    result = train(tiny_config)
    client = MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    failed = client.create_run(result.experiment_id).info.run_id
    client.log_text(failed, "x", "note.txt")
    client.set_terminated(failed, "FAILED")
    child = client.create_run(result.experiment_id, tags={"mlflow.parentRunId": failed}).info.run_id
    client.set_terminated(child, "FINISHED")
    client.delete_run(result.run_id)
    found = tracking.unneeded_runs()
    assert set(found) == {failed, child}, "the run of a registered version stays, even deleted"
    tracking.delete_runs(list(found))
    for gone in (failed, child):
        with pytest.raises(MlflowException):
            client.get_run(gone)
    assert not list((workplace / "mlartifacts" / failed).rglob("*.txt"))
    client.restore_run(result.run_id)
    assert load("models:/themewire/1").predict(["Rain."])


@pytest.mark.slow
def test_the_served_model_answers_each_story_and_refuses_bad_ones(
    workplace, tiny_config, monkeypatch
):
    train(tiny_config)
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/themewire@champion",
        "--env-manager", "local", "--port", str(port),
    ]  # fmt: skip

    def ask(records):
        body = json.dumps({"dataframe_records": records}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as found:  # noqa: S310
                return found.status, json.loads(found.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    # MLflow starts uvicorn by its name
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command[:0] = [
        "env",
        f"PATH={path}",
        f"MLFLOW_TRACKING_URI=sqlite:///{workplace / 'mlflow.db'}",
    ]
    with started(command, f"http://127.0.0.1:{port}/health", workplace):
        stories = [{"title": "News", "text": "The rifles were sold abroad."}] * 2 + [
            {"text": "Rain fell."}
        ]
        status, found = ask(stories)
        assert status == 200
        assert len(found["predictions"]) == 3
        assert found["predictions"][0]["themes"] == ["sale"]
        status, found = ask([{"title": "", "text": " "}])
        assert status == 400
        assert "neither title nor text" in json.dumps(found)
