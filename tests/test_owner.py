"""Commands for the owner of the model: decide, audit, suggest, drift, curve, the report."""

import json

import numpy as np
import pytest

from tests.conftest import NAMES, run, tiny_records, tiny_tables, write_jsonl
from themewire import load
from themewire.articles import Article
from themewire.audit import audit
from themewire.bundle import load_bundle
from themewire.checks import check_corpus
from themewire.config import make_config
from themewire.curve import curve_picture, learning_curve
from themewire.drift import drift
from themewire.suggest import suggest


def test_audit_finds_planted_mistakes(workplace):
    records = tiny_records(90, 1)
    flipped = {"s5", "s21", "s40", "s77"}
    for record in records:
        if record["id"] in flipped:
            record["themes"] = [name for name in NAMES if name not in record["themes"]]
            record["evidence"] = {}
    write_jsonl(workplace / "articles.jsonl", records)
    config = make_config(tiny_tables(), "test")
    suspects = audit(config, check_corpus(config))
    assert len(suspects) == 2 * 90
    first = suspects[:8]
    assert len({each.article.id for each in first} & flipped) >= 3
    assert [s.quality for s in suspects] == sorted(s.quality for s in suspects)
    forgotten = next(each for each in first if not each.labelled)
    assert any(word in forgotten.sentence for word in ("rifles", "drill"))
    assert forgotten.place.startswith("articles.jsonl:")


def test_suggestions_are_unsure_and_unlike_each_other(tiny_bundle):
    decision = load_bundle(tiny_bundle).decision
    same = [Article(id=f"a{i}", text="The cargo of grain sailed north at dawn") for i in range(5)]
    other = Article(id="b", text="Musicians rehearsed symphonies inside concert halls")
    sure = Article(id="c", text="Chess champions met under bright summer skies")
    at = decision.thresholds
    probabilities = np.array([at + 0.01] * 5 + [at + 0.03] + [np.full(2, 0.999)])
    picks = suggest([*same, other, sure], probabilities, decision, 3)
    assert picks[0].place in range(5)
    assert picks[1].place == 5, "another copy of the first teaches little"
    assert len({pick.place for pick in picks}) == 3


def test_drift_is_seen_and_its_absence_too(tiny_bundle):
    bundle = load_bundle(tiny_bundle)
    alike = [Article.model_validate(record) for record in tiny_records(60, 12)]
    assert not [row.what for row in drift(bundle, alike) if row.beyond(0.45)]
    texts = [("Die Regierung hat am Montag neue Regeln beschlossen und die Opposition ist dagegen, "
             "weil sie mehr Zeit wollte und die Kosten nicht kennt")] * 40  # fmt: skip
    far = {row.what for row in drift(bundle, [Article(text=t) for t in texts]) if row.beyond(0.3)}
    assert {"share of words never seen", "share of stories not in English"} <= far


def test_the_curve_rises(workplace):
    config = make_config(tiny_tables(), "test")
    checked = check_corpus(config)
    points = list(learning_curve(config, checked, checked.corpus.test.articles, (0.25, 1.0)))
    assert [point.articles for point in points] == [15, 60]
    assert points[1].cv.macro_f1 >= points[0].cv.macro_f1
    assert points[1].other is not None
    curve_picture(points).savefig(workplace / "curve.png")
    assert (workplace / "curve.png").stat().st_size > 1000


def test_a_trained_decision_is_changed_without_training(workplace, tiny_bundle):
    model = ("--model", str(tiny_bundle))
    done = run("decide", *model, "--threshold", "sale=0.9", "--band", "0", "--recall", "0.5",
               "--output", "new", cwd=workplace)  # fmt: skip
    assert done.returncode == 0, done.stderr
    decision = load("new").bundle.decision
    assert decision.themes[0].threshold == 0.9
    assert decision.guarantee is not None
    assert decision.guarantee.recall == 0.5
    assert decision.band == 0
    write_jsonl(workplace / "wire.jsonl", [{"text": f"Rain fell {i} times."} for i in range(30)])
    done = run(
        "decide", "--model", "new", "--adapt", "wire.jsonl", "--output", "new", cwd=workplace
    )
    assert done.returncode == 0, done.stderr
    assert load("new").bundle.decision.themes[0].shift < 0
    for wrong in (
        ["--threshold", "cake=1"],
        ["--threshold", "sale=7"],
        ["--threshold", "sale=high"],
        ["--recall", "0.999", "--confidence", "0.999"],
    ):
        refused = run("decide", *model, *wrong, "--output", "other", cwd=workplace)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1
    assert not (workplace / "other").exists()


@pytest.fixture
def settings(workplace):
    (workplace / "c.toml").write_text(
        f'[data]\narticles = "articles.jsonl"\ntest = "test.jsonl"\n[taxonomy]\nnames = {list(NAMES)}\n'
        "[split]\nfolds = 3\n"
    )
    return workplace


def test_commands(settings, tiny_bundle):
    model = ("--model", str(tiny_bundle))
    done = run("audit", "c.toml", "--top", "5", "--format", "tasks", cwd=settings)
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout)
    assert all(task["meta"] and task["annotations"] for task in tasks)
    assert "quality" in run("audit", "c.toml", "--top", "2", cwd=settings).stdout

    done = run("suggest", "test.jsonl", *model, "--top", "4", cwd=settings)
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout)
    assert len(tasks) == 4
    assert all("predictions" in task and "themes" not in task["data"] for task in tasks)

    assert run("drift", "articles.jsonl", *model, "--level", "0.9", cwd=settings).returncode == 0
    (settings / "far.txt").write_text("Je ne sais pas ce que vous voulez dire. " * 9)
    write_jsonl(
        settings / "far.jsonl", [{"text": "Je ne sais pas ce que vous voulez dire. " * 9}] * 30
    )
    far = run("drift", "far.jsonl", *model, cwd=settings)
    assert far.returncode == 1
    assert far.stderr.startswith("drifted beyond 0.3: ")

    done = run("evaluate", "test.jsonl", *model, "--report", "report.html", cwd=settings)
    assert done.returncode == 0, done.stderr
    assert (settings / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    done = run("curve", "c.toml", "--on", "test.jsonl", "--picture", "curve.svg", cwd=settings)
    assert done.returncode == 0, done.stderr
    assert (settings / "curve.svg").exists()
