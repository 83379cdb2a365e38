"""Two models side by side, and the champion changed by hand."""

import numpy as np
import pytest

from tests.conftest import NAMES, run, tiny_records, tiny_tables, write_jsonl
from themewire import load
from themewire.articles import Article
from themewire.bundle import write_decision
from themewire.config import make_config
from themewire.decisions import with_threshold
from themewire.errors import UsageError
from themewire.evaluation import measure_bundle
from themewire.lifecycle import compare, promote, rollback
from themewire.promotion import judge, relative_cost
from themewire.training import train


def test_comparison_shows_where_two_models_differ(tiny_bundle, tmp_path):
    first = load(str(tiny_bundle))
    write_decision(first.bundle, with_threshold(first.bundle.decision, "sale", 1.0), tmp_path / "b")
    second = load(str(tmp_path / "b"))
    articles = [Article.model_validate(record) for record in tiny_records(40, 9)]
    found = compare(first, second, articles, seed=1)
    assert found.macro[1] < 0, "a model that never tags one theme is worse beyond the interval"
    assert found.differences
    assert all("sale" in each.first and "sale" not in each.second for each in found.differences)
    same = compare(first, first, articles, seed=1)
    assert same.macro == (0, 0)
    assert not same.differences


def test_cost_is_a_ratio_of_two_timings(tiny_bundle):
    bundle = load(str(tiny_bundle)).bundle
    articles = [Article.model_validate(record) for record in tiny_records(40, 9)]
    assert 0 < relative_cost(bundle, bundle, articles) < np.inf


def test_as_good_and_cheaper_is_promoted_as_good_alone_is_not(tiny_bundle, monkeypatch):
    champion = load(str(tiny_bundle)).bundle
    challenger = load(str(tiny_bundle)).bundle
    articles = [Article.model_validate(record) for record in tiny_records(40, 9)]
    test = measure_bundle(challenger, articles, seed=1)
    for cost, promoted in ((0.79, True), (0.81, False)):
        monkeypatch.setattr("themewire.promotion.relative_cost", lambda *_, cost=cost: cost)
        verdict = judge(challenger, champion, test, 1, 0.7)
        assert verdict.promote is promoted
        assert f"{cost:.0%} of the CPU time" in verdict.reason


@pytest.fixture
def three_versions(workplace):
    """Version 1, the champion, and two more that did not pass the gate."""
    for c in (10.0, 9.0, 8.0):
        train(make_config(tiny_tables() | {"tagger": {"kind": "linear", "c": c}}, "test"))
    return workplace


def champion():
    predictor = load("models:/themewire@champion")
    assert load("models/champion").bundle.digest == predictor.bundle.digest
    return predictor.name


def test_promotion_by_hand_and_the_way_back(three_versions):
    target = three_versions / "models/champion"
    assert champion() == "themewire/1"
    promote("themewire", "3", target)
    assert champion() == "themewire/3"
    promote("themewire", "2", target)
    assert champion() == "themewire/2"
    rollback("themewire", target)
    assert champion() == "themewire/3"
    rollback("themewire", target)
    assert champion() == "themewire/1"
    with pytest.raises(UsageError, match="first champion"):
        rollback("themewire", target)
    with pytest.raises(UsageError, match="no such model"):
        promote("themewire", "9", target)
    assert champion() == "themewire/1"


def test_a_bundle_that_was_changed_is_not_promoted(three_versions, monkeypatch):
    from themewire import tracking

    folder, name = tracking.fetch_bundle("models:/themewire/2")
    (folder / "card.md").write_text("another card")
    monkeypatch.setattr(tracking, "fetch_bundle", lambda address: (folder, name))
    with pytest.raises(UsageError, match="not what the manifest says"):
        promote("themewire", "2", three_versions / "models/champion")
    monkeypatch.undo()
    monkeypatch.chdir(three_versions)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert champion() == "themewire/1"


def test_a_champion_that_cannot_be_opened_stands_in_nobodys_way(three_versions):
    for path in three_versions.glob("mlartifacts/**/bundle/words.json"):
        path.write_text("{}")
    done = train(make_config(tiny_tables(), "test"))
    assert done.verdict.promote
    assert "cannot be opened" in done.verdict.reason
    assert "words.json" in done.verdict.reason
    assert champion() == "themewire/4"


def test_predict_says_when_folder_and_registry_have_come_apart(three_versions, monkeypatch):
    from mlflow.tracking import MlflowClient

    # MLflow leaves the address of its store there for child processes
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    (three_versions / "story.txt").write_text("The rifles were sold abroad.", encoding="utf-8")
    together = run("predict", "story.txt", cwd=three_versions)
    assert (together.returncode, together.stderr) == (0, "")
    client = MlflowClient(tracking_uri=f"sqlite:///{three_versions / 'mlflow.db'}")
    client.set_registered_model_alias("themewire", "champion", "2")
    apart = run("predict", "story.txt", cwd=three_versions)
    assert apart.returncode == 0
    assert "models/champion is not models:/themewire@champion (version 2)" in apart.stderr


def test_commands(three_versions):
    write_jsonl(three_versions / "labelled.jsonl", tiny_records(20, 5, "l"))
    settings = ["[taxonomy]", f"names = {list(NAMES)}", "[data]", 'test = "labelled.jsonl"']
    (three_versions / "c.toml").write_text("\n".join(settings))
    done = run(
        "compare",
        "models:/themewire/1",
        "models:/themewire/2",
        "--config",
        "c.toml",
        cwd=three_versions,
    )
    assert done.returncode == 0, done.stderr
    assert "second minus first" in done.stdout
    assert run("promote", "2", "--config", "c.toml", cwd=three_versions).stdout.startswith(
        "champion themewire/2"
    )
    assert run("rollback", "--config", "c.toml", cwd=three_versions).stdout.startswith(
        "champion themewire/1"
    )
    wrong = run("promote", "7", "--config", "c.toml", cwd=three_versions)
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1
