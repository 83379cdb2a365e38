import tomllib

import pytest

from tests.conftest import run, tiny_tables
from themewire.config import make_config
from themewire.errors import UsageError
from themewire.sweep import STORE, sweep
from themewire.training import train


def test_a_sweep_resumes_logs_its_trials_and_leaves_a_config(workplace, tiny_config):
    from mlflow.tracking import MlflowClient

    first = sweep(tiny_config, 2)
    assert first.trials == 2
    again = sweep(tiny_config, 3)
    assert again.trials == 3
    assert (workplace / STORE).exists()
    client = MlflowClient(tracking_uri=f"sqlite:///{workplace / 'mlflow.db'}")
    home = client.get_run(again.run_id).info.experiment_id
    trials = client.search_runs([home], f"tags.`mlflow.parentRunId` = '{again.run_id}'")
    assert len(trials) == 1, "the two earlier trials are not run again"
    assert "cv/macro_f1" in trials[0].data.metrics
    assert trials[0].outputs is None or not trials[0].outputs.model_outputs
    tables = tomllib.loads(again.toml)
    assert tables["tagger"] == {"kind": "linear", **again.best}
    # the file stands on its own: it says where the data is, as the swept configuration did
    best = train(make_config(tables, "test"))
    assert best.cv.figures.macro_f1 == pytest.approx(again.macro_f1)


def test_a_stack_is_not_swept(workplace):
    with pytest.raises(UsageError, match="stack"):
        sweep(make_config(tiny_tables() | {"tagger": {"kind": "stack"}}, "test"), 1)


def test_the_command_writes_a_file(workplace):
    (workplace / "c.toml").write_text(
        '[data]\narticles = "articles.jsonl"\ntest = "test.jsonl"\n'
        '[taxonomy]\nnames = ["sale", "drill"]\n[split]\nfolds = 3\n'
    )
    done = run("sweep", "c.toml", "--trials", "1", "--output", "best.toml", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert tomllib.loads((workplace / "best.toml").read_text())["tagger"]["kind"] == "linear"
