import io
import json

import pytest

from tests.conftest import write_jsonl
from themewire import load
from themewire.articles import Article, Fault
from themewire.errors import InputRefused, UsageError
from themewire.inputs import Reader
from themewire.predict import predict_stream

STORY = "Rain fell. The rifles were sold to the northern neighbour on day 3. Both navies began a drill off the coast."


@pytest.fixture(scope="session")
def predictor(tiny_bundle):
    return load(str(tiny_bundle))


def test_both_themes_each_with_its_sentence(predictor):
    record = {"id": "x", "title": "Two things", "text": STORY}
    (found,) = predictor.predict([record])
    assert found.themes == ["sale", "drill"]
    assert list(found.evidence) == found.themes
    assert "rifles" in found.evidence["sale"][0].text
    assert "drill" in found.evidence["drill"][0].text
    for sentences in found.evidence.values():
        scores = [sentence.score for sentence in sentences]
        assert scores == sorted(scores, reverse=True)
        for s in sentences:
            assert record[s.field][s.start : s.end] == s.text


def test_the_record_has_the_contracts_keys_in_order(predictor):
    (found,) = predictor.predict([STORY])
    assert list(found.to_dict()) == [
        "id", "themes", "probabilities", "evidence", "review", "review_reasons", "model",
    ]  # fmt: skip
    assert list(found.probabilities) == list(predictor.themes)
    assert "@sha256:" in found.model


def test_batches_do_not_change_answers(predictor):
    texts = [f"{STORY} {i}" for i in range(7)]
    assert predictor.predict(texts) == [predictor.predict([text])[0] for text in texts]


def test_a_record_without_text_is_refused(predictor):
    with pytest.raises(InputRefused, match="record 1"):
        predictor.predict([STORY, {"title": " "}])


def test_bad_lines_are_named_and_good_ones_go_through(tmp_path, predictor):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": STORY}, "{", {"title": ""}, {"text": STORY}])
    found = list(
        predict_stream(
            predictor, Reader().read([str(path), str(tmp_path / "none.txt")], io.BytesIO())
        )
    )
    assert [isinstance(item, Fault) for item in found] == [False, True, True, False, True]
    assert str(found[1]).startswith(f"{path}:2: json:")
    assert "neither title nor text" in str(found[2])


def test_odd_characters_get_an_answer(predictor):
    odd = json.loads('"\\ud800 rifles \\u0000 sold \\ud83d\\ude00"')
    (found,) = predictor.predict([Article(id="a", text=f"{odd}. {STORY}")])
    assert found.themes


def test_no_model_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="make train"):
        load("models/champion")
