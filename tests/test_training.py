"""Trainings that really train, on a tiny corpus."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import NAMES, tiny_records, tiny_tables, write_jsonl
from themewire import load
from themewire.config import make_config
from themewire.errors import InputRefused
from themewire.training import train


@pytest.fixture
def client(workplace):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")


def test_a_training_end_to_end(workplace, client, tiny_config):
    result = train(tiny_config)
    assert result.cv.figures.macro_f1 > 0.9
    assert result.test is not None
    assert result.version == "themewire/1"
    run = client.get_run(result.run_id)
    for name in ("cv/macro_f1", "cv/micro_f1", "test/macro_f1", "test/micro_f1",
                 "test/theme/sale/f1", "test/interval/macro_low"):  # fmt: skip
        assert name in run.data.metrics
    assert run.data.params["tagger.kind"] == "linear"
    assert {entry.dataset.name for entry in run.inputs.dataset_inputs} == {"articles", "test"}
    children = client.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{result.run_id}'"
    )
    assert len(children) == 3
    assert all("fold/macro_f1" in child.data.metrics for child in children)
    version = client.get_model_version_by_alias("themewire", "champion")
    folder = load("models/champion").bundle
    assert version.tags["manifest_sha256"] == folder.digest
    # the folder and every registry address lead to the same bundle
    for address in (
        "models:/themewire@champion",
        "models:/themewire/1",
        f"runs:/{result.run_id}/model",
    ):
        predictor = load(address)
        assert predictor.bundle.digest == folder.digest
    assert load("models:/themewire@champion").name == "themewire/1"


def test_same_seed_same_figures_and_no_needless_promotion(workplace, client, tiny_config):
    first, second = train(tiny_config), train(tiny_config)
    assert first.cv.figures == second.cv.figures
    assert first.test is not None
    assert second.test is not None
    assert first.test.figures == second.test.figures
    assert second.verdict is not None
    assert not second.verdict.promote
    assert str(client.get_model_version_by_alias("themewire", "champion").version) == "1"
    challenger = client.get_model_version_by_alias("themewire", "challenger")
    assert challenger.tags["gate"] == second.verdict.reason


def test_another_seed_alone_is_no_reason_to_promote(workplace, tiny_config):
    train(tiny_config)
    other = train(make_config(tiny_tables() | {"split": {"folds": 3, "seed": 99}}, "test"))
    assert other.verdict is not None
    assert other.verdict.reason.startswith("not promoted")


def test_better_is_promoted_worse_is_not(workplace, client):
    records = tiny_records(60, 1)
    write_jsonl(workplace / "noise.jsonl", [
        record | {"themes": list(NAMES[: i % 3]), "evidence": {}} for i, record in enumerate(records)
    ])  # fmt: skip
    write_jsonl(workplace / "test.jsonl", tiny_records(60, 2, "t"))
    bad = tiny_tables()
    bad["data"]["articles"] = "noise.jsonl"
    good = make_config(tiny_tables(), "test")
    worst = train(make_config(bad, "test"))
    assert worst.verdict is not None
    assert worst.verdict.promote
    better = train(good)
    assert better.verdict is not None
    assert better.verdict.reason.startswith("promoted: better")
    worse = train(make_config(bad, "test"))
    assert worse.verdict is not None
    assert worse.verdict.reason.startswith("not promoted")
    assert str(client.get_model_version_by_alias("themewire", "champion").version) == "2"


def test_faults_stop_a_training_before_it_starts(workplace, tiny_config):
    write_jsonl(workplace / "articles.jsonl", [*tiny_records(30, 1), '{"id": "x"}'])
    with pytest.raises(InputRefused, match="1 faults in 1 records; 50 records are good"):
        train(tiny_config)
    assert not (workplace / "models").exists()


def test_nothing_is_registered_where_no_name_is_given(workplace, client):
    tables = tiny_tables() | {"tracking": {"registered_model": ""}, "output": {"champion": ""}}
    result = train(make_config(tables, "test"))
    assert result.version is None
    assert not client.search_registered_models()
    assert not (workplace / "models").exists()


def test_the_logged_model_answers_row_by_row(workplace, tiny_config):
    import mlflow
    import pandas as pd

    train(tiny_config)
    model = mlflow.pyfunc.load_model("models:/themewire@champion")
    frame = pd.DataFrame(
        {"title": ["", None], "text": ["The rifles were sold abroad.", "Rain fell."]}
    )
    found = model.predict(frame)
    assert len(found) == 2
    assert found["themes"][0] == ["sale"]


@pytest.mark.slow
def test_two_trainings_at_once_both_end_whole(workplace):
    from mlflow.tracking import MlflowClient

    (workplace / "mlflow.db").unlink()
    config = {**tiny_tables()}
    lines = [f'articles = "{config["data"]["articles"]}"', f'test = "{config["data"]["test"]}"']
    (workplace / "c.toml").write_text(
        "[data]\n" + "\n".join(lines) + f"\n[taxonomy]\nnames = {json.dumps(list(NAMES))}\n"
    )
    command = [sys.executable, "-m", "themewire", "train", "c.toml"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    for process in both:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    client = MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    assert {str(v.version) for v in client.search_model_versions("name='themewire'")} == {"1", "2"}
    assert str(client.get_model_version_by_alias("themewire", "champion").version) == "1"
    experiment = client.get_experiment_by_name("themewire")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_killed_run_is_ended_and_linked(workplace, client, tiny_config):
    first = train(tiny_config)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    tags = client.get_run(first.run_id).data.tags
    kept = {name: tags[name] for name in ("job", "host")}
    killed, alive, other = (
        client.create_run(first.experiment_id, tags=kept | more).info.run_id
        for more in (
            {"process": str(gone.pid)},
            {"process": str(os.getpid())},
            {"process": str(gone.pid), "job": "another"},
        )
    )
    second = train(tiny_config)
    assert client.get_run(killed).info.status == "KILLED"
    assert client.get_run(killed).data.tags["resumed_by"] == second.run_id
    assert client.get_run(second.run_id).data.tags["resumes"] == killed
    assert client.get_run(alive).info.status == "RUNNING"
    assert client.get_run(other).info.status == "RUNNING"


def test_finetune_is_measured_on_one_fold_held_out(workplace, client, tiny_encoder):
    tagger = {
        "kind": "stack",
        "sentences": {
            "kind": "finetune", "encoder": str(tiny_encoder), "layers": [0, 2], "hidden": 32,
            "epochs": 1, "batch": 8, "head_epochs": 60, "refit": False,
        },
    }  # fmt: skip
    result = train(make_config(tiny_tables() | {"tagger": tagger}, "test"))
    assert 15 < len(result.cv.stories) < 25, "one fold of three"
    metrics = client.get_run(result.run_id).data.metrics
    assert "held_out/mean_ap" in metrics
    assert not any(name.startswith("final/") for name in metrics)
    assert load("models/champion").predict(["The rifles were sold to the northern neighbour."])
