"""The report page, read by a real browser where there is one."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from tests.conftest import NAMES, tiny_records
from themewire.articles import Article
from themewire.bundle import load_bundle
from themewire.evaluation import measure_bundle
from themewire.page import report_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
ATTACK = '</script><script>document.title="owned"</script><img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def measured(tiny_bundle):
    bundle = load_bundle(tiny_bundle)
    records = tiny_records(40, 9)
    for i, record in enumerate(records):
        record["genre"] = ("wire", "blog")[i % 2]
    # two planted errors: one story is told to lack what it has, one to have what it lacks
    wrong = {"id": "x1", "title": ATTACK, "text": "The rifles were sold abroad. " + ATTACK}
    missed = {
        "id": "x2", "title": "Rain 𝔘", "text": "Rain fell on the capital. Drums were heard.",
        "themes": ["drill"], "evidence": {"drill": ["Drums were heard."]},
    }  # fmt: skip
    articles = [Article.model_validate(record) for record in [*records, wrong, missed]]
    return measure_bundle(bundle, articles, seed=0), bundle.decision


@pytest.fixture(scope="module")
def page(measured):
    return report_page(*measured, "tiny", "a test")


def test_the_page_needs_nothing_else_and_holds_no_live_markup(page):
    assert not re.search(r"(src|href)=[\"'](?!data:)", page.split("<script type")[0])
    assert "http://" not in page
    assert "https://" not in page
    assert ATTACK not in page
    assert page.count("</script>") == 2


def test_two_errors_were_planted(measured):
    found, _ = measured
    wrong = [
        found.stories[i].article.id
        for i in np.flatnonzero((found.labels != found.tags).any(axis=1))
    ]
    assert {"x1", "x2"} <= set(wrong)


def dom_after(page, steps, tmp_path):
    """What the browser has made of the page once the steps were taken."""
    path = tmp_path / "report.html"
    path.write_text(page.replace("</body>", f"<script>{steps}</script></body>"), encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=90).stdout


@browser
def test_it_opens_sorts_filters_and_shows_a_story(page, tmp_path):
    steps = """
    const out = [];
    const rows = () => [...document.querySelectorAll("#errors tbody tr.error")];
    out.push(rows().length);
    document.querySelectorAll("#errors th button")[0].click();
    const ids = rows().map(r => r.cells[0].textContent);
    out.push(String(ids.join() === [...ids].sort((a, b) => a.localeCompare(b)).join()));
    document.getElementById("words").value = "drums";
    document.getElementById("words").dispatchEvent(new Event("input"));
    out.push(rows().map(r => r.cells[0].textContent).join());
    rows()[0].click();
    out.push(document.querySelector(".story mark.label, .story mark.both").textContent);
    document.getElementById("words").value = "";
    document.getElementById("theme").value = "sale";
    document.getElementById("theme").dispatchEvent(new Event("input"));
    out.push(String(rows().every(r => r.cells[1].textContent === "sale")));
    rows().find(r => r.cells[0].textContent === "x1").click();
    out.push(document.querySelectorAll(".story img, .story script").length);
    const result = document.createElement("pre");
    result.id = "result";
    result.textContent = JSON.stringify(out);
    document.body.append(result);
    """
    dom = dom_after(page, steps, tmp_path)
    result = re.search(r'<pre id="result">(.*?)</pre>', dom)
    assert result is not None
    count, is_sorted, filtered, mark, only_sale, alive = json.loads(result[1])
    assert count >= 2
    assert (is_sorted, filtered, mark, only_sale, alive) == (
        "true", "x2", "Drums were heard.", "true", 0,
    )  # fmt: skip
    assert "<title>themewire report</title>" in dom
    for heading in (
        "Figures",
        "By theme",
        "Calibration",
        "Review",
        "By genre",
        "By decade",
    ):
        assert f"<h2>{heading}</h2>" in dom
    for name in NAMES:
        assert name in dom
