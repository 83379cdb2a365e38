import json

import datasets
import pandas as pd
import pytest

from tests.conftest import NAMES, run, tiny_records, write_jsonl
from themewire.articles import Article, Fault
from themewire.errors import InputRefused, UsageError
from themewire.exchange import (
    Columns,
    good_articles,
    labelling_interface,
    to_task,
    write_tasks,
)
from themewire.themes import plain_taxonomy

TAXONOMY = plain_taxonomy(NAMES)
RECORDS = [
    *tiny_records(8, 1),
    # a character outside the basic plane moves a browser's offsets; evidence in the title
    {"id": "emoji", "title": "🚢 The drill of two fleets", "text": "Nothing 🚀 here. A sale of\nrifles abroad.",
     "themes": ["sale", "drill"], "published": "2014", "countries": ["FR", "GB"], "genre": "note",
     "source": "x", "evidence": {"drill": ["🚢 The drill of two fleets"], "sale": ["A sale of rifles abroad."]}},
]  # fmt: skip


def articles():
    return [Article.model_validate(record) for record in RECORDS]


def imported(path, columns=Columns()):  # noqa: B008
    return list(good_articles(path, columns, TAXONOMY))


def same(found):
    """Labels, texts and metadata are the originals', evidence white space aside."""
    assert not [item for item in found if isinstance(item, Fault)]
    for before, after in zip(articles(), found, strict=True):
        assert set(before.themes) == set(after.themes)
        for name in ("id", "title", "text", "genre", "published", "countries", "source"):
            assert getattr(before, name) == getattr(after, name)
        flat = [{t: [" ".join(s.split()) for s in found] for t, found in a.evidence.items() if found}
                for a in (before, after)]  # fmt: skip
        assert flat[0] == flat[1]


def test_label_studio_and_back(tmp_path):
    path = tmp_path / "tasks.json"
    path.write_text(write_tasks(articles(), TAXONOMY), encoding="utf-8")
    same(imported(path))


def test_a_browser_finds_the_marked_sentence_at_its_place():
    task = to_task(articles()[-1], TAXONOMY)
    marks = [
        r["value"] | {"field": r["to_name"]}
        for r in task["annotations"][0]["result"]
        if r["type"] == "labels"
    ]
    assert {mark["field"] for mark in marks} == {"title", "text"}
    for mark in marks:
        units = task["data"][mark["field"]].encode("utf-16-le")
        assert units[2 * mark["start"] : 2 * mark["end"]].decode("utf-16-le") == mark["text"]


def test_the_last_annotation_that_stands_is_taken(tmp_path):
    task = {"id": 7, "data": {"text": "A sale."}, "annotations": [
        {"result": [{"value": {"choices": ["drill"]}}]},
        {"result": [{"value": {"labels": ["sale"], "text": "A sale."}}]},
        {"was_cancelled": True, "result": []},
    ]}  # fmt: skip
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]), encoding="utf-8")
    (article,) = imported(path)
    assert (article.id, article.themes) == ("7", ("sale",))


def test_parquet_and_data_set_folders_and_back(tmp_path):
    frame = pd.DataFrame(RECORDS)
    frame.to_parquet(tmp_path / "a.parquet")
    same(imported(tmp_path / "a.parquet"))
    rows = [r | {"evidence": {n: r["evidence"].get(n, []) for n in NAMES}} for r in RECORDS]
    datasets.Dataset.from_pandas(pd.DataFrame(rows)).save_to_disk(tmp_path / "folder")
    same(imported(tmp_path / "folder"))


def test_csv_and_back(tmp_path):
    frame = pd.DataFrame(
        [r | {"themes": "|".join(r["themes"]), "evidence": json.dumps(r["evidence"]),
              "countries": ";".join(r.get("countries", []))} for r in RECORDS]
    )  # fmt: skip
    frame.to_csv(tmp_path / "a.csv", index=False)
    same(imported(tmp_path / "a.csv"))


def test_csv_with_other_names_and_a_column_a_theme(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("nr,body,sale,drill\n007,A sale.,1,0\n008,Rain.,,false\n", encoding="utf-8")
    found = imported(path, Columns(id="nr", text="body"))
    assert [(a.id, a.text, a.themes) for a in found] == [
        ("007", "A sale.", ("sale",)),
        ("008", "Rain.", ()),
    ]


def test_bad_records_are_named_and_the_others_go_through(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,text,themes\n1,A,sale\n1,B,\n3,,drill\n4,C,sail\n5,D,\n", encoding="utf-8")
    found = imported(path)
    assert [a.id for a in found if isinstance(a, Article)] == ["1", "5"]
    lines = [str(f) for f in found if isinstance(f, Fault)]
    assert [line.split(": ")[0] for line in lines] == [f"{path}:{n}" for n in (2, 3, 4)]
    assert "did you mean 'sale'?" in lines[-1]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.json", "{", InputRefused),
        ("a.json", '{"a": 1}', InputRefused),
        ("a.parquet", "no parquet", InputRefused),
        ("a.csv", "", InputRefused),
        ("a.xls", "x", UsageError),
    ],
)
def test_files_that_are_not_what_they_say(tmp_path, name, content, error):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(error, match=name):
        imported(tmp_path / name)


def test_a_folder_that_is_no_data_set(tmp_path):
    with pytest.raises(InputRefused):
        imported(tmp_path)


def test_the_interface_has_every_theme():
    interface = labelling_interface(TAXONOMY)
    assert all(interface.count(f'value="{name}"') == 3 for name in NAMES)


def test_both_commands(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", RECORDS)
    (tmp_path / "c.toml").write_text(f"[taxonomy]\nnames = {json.dumps(list(NAMES))}\n")
    done = run(
        "export",
        "in.jsonl",
        "--config",
        "c.toml",
        "--output",
        "t.json",
        "--interface",
        "i.xml",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    done = run("import", "t.json", "--config", "c.toml", "--output", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.jsonl").read_text().count("\n") == len(RECORDS)
    assert "<View>" in (tmp_path / "i.xml").read_text()
