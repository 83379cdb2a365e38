"""Whatever the desk has: files, tables, archives, pages, addresses; and what is wrong with them."""

import bz2
import gzip
import http.server
import io
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import run, write_jsonl
from themewire.articles import BrokenOff, Fault
from themewire.inputs import Given, Reader, bounded_lines, decoded
from themewire.web import WebError, checked_connection, fetch, page_story

PARAGRAPHS = "".join(
    f"<p>The ministry said on Monday that clause {i} of the contract covers spare parts for the frigates.</p>"
    for i in range(6)
)
PAGE = f"""<html><head><title>Frigates for Lisbon</title></head><body><nav>Home Sport Weather</nav>
<article><h1>Frigates for Lisbon</h1>{PARAGRAPHS}</article><footer>All rights reserved</footer></body></html>"""


def read(*inputs, stdin=b"", jsonl=False, **options):
    return list(Reader(jsonl=jsonl, **options).read(inputs, io.BytesIO(stdin)))


def test_ids_are_given_or_say_the_place(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": "x", "text": "a"}, "", {"text": "b"}])
    assert [s.article.id for s in read(str(path))] == ["x", f"{path}:3"]
    text = tmp_path / "s.txt"
    text.write_text("One story.")
    assert [s.article.id for s in read(str(text))] == [str(text)]


@pytest.mark.parametrize(
    ("stdin", "jsonl", "count"),
    [
        (b"A plain\nstory.", False, 1),
        (b'{"text": "a"}\n{"title": "b"}\n', False, 2),
        (b'{"text": "a"}\nnot a record\n', False, 1),
        (b'{"headline": "a"}\n', False, 1),
        (b'{"text": "a"}\nnot a record\n', True, 2),
    ],
)
def test_standard_input_is_a_story_unless_every_line_is_a_record(stdin, jsonl, count):
    assert len(read("-", stdin=stdin, jsonl=jsonl)) == count


def test_other_encodings_are_found_and_said(tmp_path):
    story = "Le général a visité la base aérienne où les élèves étaient formés. " * 5
    for encoding in ("utf-16", "cp1252"):
        (tmp_path / "a.txt").write_bytes(story.encode(encoding))
        (found,) = read(str(tmp_path / "a.txt"))
        assert found.article.text == story
        assert "read as" in found.note
    assert decoded("näher".encode())[1] == ""


def test_empty_and_missing_files_are_refused(tmp_path):
    (tmp_path / "b.txt").write_text(" \n")
    faults = read(str(tmp_path / "b.txt"), str(tmp_path / "none.txt"))
    assert all(isinstance(item, Fault) for item in faults)


def test_compressed_files_folders_and_patterns(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"id": "x", "text": "a"}\n'))
    (tmp_path / "b.txt.bz2").write_bytes(bz2.compress(b"A story."))
    (tmp_path / "c.md").write_text("# Another")
    (tmp_path / "d.png").write_bytes(b"\x89PNG")
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"cut short")[:-9])
    found = read(str(tmp_path))
    assert [isinstance(item, Fault) for item in found] == [False, False, False, True]
    assert found[0].article.id == "x"
    assert found[1].article.id == str(tmp_path / "b.txt.bz2")
    assert len(read(str(tmp_path / "*.md"))) == 1
    assert isinstance(read(str(tmp_path / "*.nothing"))[0], Fault)


def test_tables_with_their_columns(tmp_path):
    import pandas as pd

    frame = pd.DataFrame(
        {"key": ["1", "2", "3"], "body": ["Rain fell.", "", "Snow fell."], "desk": ["a", "b", "c"]}
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        found = read(str(tmp_path / name), names={"id": "key", "text": "body"})
        assert [isinstance(item, Fault) for item in found] == [False, True, False]
        assert found[2].article.id == "3"
        assert dict(found[2].columns) == {"desk": "c"}
        (fault,) = read(str(tmp_path / name))
        assert "the columns are key, body, desk" in str(fault)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    assert isinstance(read(str(tmp_path / "bad.parquet"))[0], Fault)


def test_a_gigantic_line_is_passed_over():
    stream = io.BytesIO(b"a" * 50 + b"\nb\n" + b"c" * 31 + b"\n" + b"d" * 11)
    assert list(bounded_lines(stream, 10)) == [(1, None), (2, b"b"), (3, None), (4, None)]
    stream = io.BytesIO(b"a" * 10 + b"\n" + b"b" * 10)
    assert list(bounded_lines(stream, 10)) == [(1, b"a" * 10), (2, b"b" * 10)]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_end_as_stories_or_faults(raw, jsonl):
    for item in read("-", stdin=raw, jsonl=jsonl):
        if isinstance(item, Given):
            assert item.article.whole.strip()
        else:
            assert str(item).count("\n") == 0


def test_the_story_of_a_page_without_its_navigation(tmp_path):
    (tmp_path / "p.html").write_text(PAGE)
    (found,) = read(str(tmp_path / "p.html"))
    assert found.article.title == "Frigates for Lisbon"
    assert found.article.text.startswith("The ministry said")
    assert "Weather" not in found.article.text
    assert "rights" not in found.article.text


@pytest.mark.parametrize(
    "raw",
    [
        b"<div>" * 60_000,
        b"<html><body></body></html>",
        b"",
        b"\x00\xff\xfe" * 200,
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>',
        b"<p>" + b"a" * 9_000_000,
    ],
)
def test_pages_without_a_story_and_bombs_are_refused(raw):
    with pytest.raises(WebError):
        page_story(raw)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="<>/pdivabh1=\"' &;!-[]\x00\n", max_size=300))
def test_any_markup_is_read_or_refused(markup):
    try:
        page_story(markup.encode())
    except WebError:
        return


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        if self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
            return
        if self.path == "/gone":
            self.send_error(404)
            return
        kinds = {"/picture": "image/png", "/plain": "text/plain"}
        self.send_response(200)
        self.send_header("Content-Type", kinds.get(self.path, "text/html; charset=utf-8"))
        self.end_headers()
        body = b"<p>" + b"a" * (9 * 2**20) if self.path == "/huge" else PAGE.encode()
        try:
            self.wfile.write(body)
        except OSError:
            return

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_addresses_within_limits(site):
    (found,) = read(f"{site}/story", allow_private=True)
    assert found.article.title == "Frigates for Lisbon"
    assert found.article.id == f"{site}/story"
    assert read(f"{site}/plain", allow_private=True)[0].article.text == PAGE
    assert read(f"{site}/to//story", allow_private=True)[0].article.title == "Frigates for Lisbon"
    for path, says in (
        ("/huge", "more than 8 MiB"), ("/gone", "404"), ("/picture", "image/png"), ("/loop", "30"),
        ("/to/file:///etc/passwd", "not allowed"), ("/to/ftp://example.org/a", "unknown url type"),
    ):  # fmt: skip
        with pytest.raises(WebError, match=says):
            fetch(f"{site}{path}", allow_private=True)


def test_private_addresses_and_other_schemes_are_refused(site):
    for address in (
        site,
        "http://localhost:1/",
        "http://[::1]:1/",
        "http://0.0.0.0:1/",
        "http://169.254.1.1/",
    ):
        with pytest.raises(WebError, match="private network"):
            fetch(address)
    for address in ("file:///etc/passwd", "ftp://example.org/a"):
        with pytest.raises(WebError, match="only http and https"):
            fetch(address)
    assert isinstance(read("gopher://example.org/")[0], Fault)


def test_a_redirect_is_checked_when_it_is_followed(monkeypatch, site):
    """The first machine passes for public; the one it sends to is private and is not connected to."""
    from themewire import web

    def first_is_public(where, timeout, source, allow_private):
        return checked_connection(where, timeout, source, where[1] == int(site.rpartition(":")[2]))

    monkeypatch.setattr(web, "checked_connection", first_is_public)
    with pytest.raises(WebError, match="private network"):
        fetch(f"{site}/to/http://127.0.0.1:9/")


def test_every_format_and_the_rejects(tmp_path, tiny_bundle):
    import pandas as pd

    text = "The rifles were sold to the northern neighbour."
    rows = [
        {"id": "=a", "text": text, "desk": "north"},
        {"text": ""},
        {"title": "Rain\x1b[31m fell"},
    ]
    write_jsonl(tmp_path / "w.jsonl", rows)
    model = ("--model", str(tiny_bundle))
    for name in ("o.csv", "o.parquet", "o.jsonl"):
        done = run(
            "predict", "w.jsonl", *model, "--output", name, "--rejects", "r.txt", cwd=tmp_path
        )
        assert done.returncode == 1
        assert done.stderr == "2 stories tagged, 1 refused\n"
        assert (
            (tmp_path / "r.txt").read_text().startswith("w.jsonl:2: text: neither title nor text")
        )
    table = pd.read_csv(tmp_path / "o.csv")
    assert table["desk"].tolist()[0] == "north"
    assert table["id"].tolist()[0] == "'=a", "no formula for a spreadsheet"
    frame = pd.read_parquet(tmp_path / "o.parquet")
    assert frame["themes"].tolist()[0].tolist() == ["sale"]
    assert dict(frame["columns"][0]) == {"desk": "north"}
    (theme, sentences), *_ = frame["evidence"][0]
    assert theme == "sale"
    assert text[sentences[0]["start"] : sentences[0]["end"]] == sentences[0]["text"]
    assert json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])["themes"] == ["sale"]
    shown = run("predict", "w.jsonl", *model, "--format", "table", cwd=tmp_path)
    assert "\x1b" not in shown.stdout
    refused = run("predict", "w.jsonl", *model, "--format", "parquet", cwd=tmp_path)
    assert refused.returncode == 2


def test_halves_of_surrogate_pairs_reach_every_format(tmp_path, tiny_bundle):
    import pandas as pd

    line = '{"id": "\\ud800x", "text": "The rifles \\ud83d were sold abroad.", "desk": "\\udfff"}'
    (tmp_path / "w.jsonl").write_text(line)
    for name in ("o.csv", "o.parquet", "o.jsonl"):
        done = run(
            "predict", "w.jsonl", "--model", str(tiny_bundle), "--output", name, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    assert pd.read_parquet(tmp_path / "o.parquet")["id"].tolist() == ["?x"]
    assert json.loads((tmp_path / "o.jsonl").read_text())["id"] == "\ud800x"


def test_a_story_in_another_language_is_tagged_and_reviewed(tiny_bundle):
    from themewire import load

    german = "Die Regierung hat am Montag neue Regeln beschlossen, und die Opposition ist dagegen, weil sie mehr Zeit und Geld wollte."
    found = load(str(tiny_bundle)).predict([german, "Rain."])
    assert "not_english" in found[0].review_reasons
    assert "not_english" not in found[1].review_reasons


def test_a_column_that_csv_leaves_out_is_named_once(tmp_path, tiny_bundle):
    records = [{"id": "1", "text": "Rain fell.", "desk": "a"}]
    records += [{"id": str(n), "text": "Rain fell.", "page": n} for n in (2, 3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    done = run("predict", "in.jsonl", "--format", "csv", "--model", str(tiny_bundle), cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith("desk,id,themes,")
    assert done.stderr.count("'page'") == 1


def test_damage_stays_and_only_a_failing_disk_or_storage_may_pass(tmp_path):
    (tmp_path / "bad.jsonl.bz2").write_bytes(b"no such stream")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no such stream")
    for name in ("bad.jsonl.bz2", "bad.jsonl.gz"):
        (found,) = Reader().read([str(tmp_path / name)], io.BytesIO())
        assert type(found) is Fault, name
    (found,) = Reader().read([str(tmp_path / "none.jsonl")], io.BytesIO())
    assert isinstance(found, BrokenOff)
