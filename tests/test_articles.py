import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import NAMES, write_jsonl
from themewire.articles import BadLine, parse_line, read_articles, story_record
from themewire.errors import InputRefused
from themewire.themes import plain_taxonomy

TAXONOMY = plain_taxonomy(NAMES)
GOOD = {"id": "a", "title": "T", "text": "Rifles  were\nsold.", "themes": ["sale"],
        "evidence": {"sale": ["Rifles were sold."]}}  # fmt: skip


def faults_of(tmp_path, *lines):
    path = write_jsonl(tmp_path / "a.jsonl", lines)
    return read_articles([path], TAXONOMY)


def test_good_record_is_kept_to_the_character(tmp_path):
    reading = faults_of(tmp_path, GOOD)
    assert not reading.faults
    assert reading.articles[0].text == GOOD["text"]
    assert reading.places == [f"{tmp_path / 'a.jsonl'}:1"]


def test_null_is_the_same_as_absent(tmp_path):
    reading = faults_of(tmp_path, GOOD | {"genre": None, "countries": None, "published": None})
    assert not reading.faults
    assert reading.articles[0].genre is None


FIFTEEN = [
    (GOOD | {"id": "a1", "title": "", "text": " "}, "text"),
    (GOOD | {"id": "a2", "themes": ["sales"], "evidence": {}}, "themes[0]"),
    (GOOD | {"id": "a3", "titel": "x"}, "titel"),
    (GOOD | {"id": "a4", "evidence": {"sale": ["Never said."]}}, "evidence.sale[0]"),
    (GOOD | {"id": "a5", "text": 5, "evidence": {}}, "text"),
    (GOOD | {"id": "a"}, "id"),
    ({k: v for k, v in GOOD.items() if k != "id"}, "id"),
    ('{"id": "a7", "text": }', "json"),
    ('["a8"]', "json"),
    (GOOD | {"id": "a9", "themes": "sale", "evidence": {}}, "themes"),
    (GOOD | {"id": "a10", "published": "14 May"}, "published"),
    (GOOD | {"id": "a11", "countries": ["Norway"]}, "countries[0]"),
    (GOOD | {"id": "a12", "evidence": {"drill": ["Rifles were sold."]}}, "evidence.drill"),
    ('{"id": "a13", "text": "x", "text": "y"}', "text"),
    (GOOD | {"id": "a14", "themes": ["sale", "sale"]}, "themes[1]"),
]


def test_fifteen_faults_get_fifteen_lines(tmp_path):
    reading = faults_of(tmp_path, GOOD, *(record for record, _ in FIFTEEN))
    assert [fault.field for fault in reading.faults] == [field for _, field in FIFTEEN]
    assert [fault.line for fault in reading.faults] == list(range(2, 17))
    assert len(reading.articles) == 1
    with pytest.raises(InputRefused, match="1 records are good"):
        reading.require_sound()


def test_hints_name_the_near_word(tmp_path):
    lines = [str(fault) for fault in faults_of(tmp_path, FIFTEEN[1][0], FIFTEEN[2][0]).faults]
    assert "did you mean 'sale'?" in lines[0]
    assert "did you mean 'title'?" in lines[1]


def test_all_faults_of_one_record_are_reported(tmp_path):
    reading = faults_of(tmp_path, {"id": 4, "text": "x", "themes": ["foo"], "colour": 1})
    assert {fault.field for fault in reading.faults} == {"id", "themes[0]", "colour"}


def test_broken_utf8_is_named_by_its_byte(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": "x", "text": "caf\xe9"}\n' + json.dumps(GOOD).encode())
    reading = read_articles([path], TAXONOMY)
    assert len(reading.articles) == 1
    assert "byte 0xe9 at position 25" in str(reading.faults[0])


def test_byte_order_mark_and_blank_lines_are_no_faults(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n")
    assert len(read_articles([path], TAXONOMY).articles) == 1


def test_missing_file_says_so(tmp_path):
    with pytest.raises(InputRefused, match="no articles there"):
        read_articles([tmp_path / "nothing"], TAXONOMY)


def test_predict_ignores_what_it_does_not_need():
    story = story_record({"text": "x", "colour": 1, "themes": "whatever"})
    assert story.text == "x"
    with pytest.raises(BadLine):
        story_record({"title": "  "})


@given(st.binary(max_size=80))
def test_any_bytes_are_a_record_or_a_named_fault(raw):
    try:
        found = parse_line(raw)
    except BadLine as bad:
        found = {"hint": bad.hint}
    assert all(value is not None for value in found.values())
