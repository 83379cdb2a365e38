"""Stories from whatever the desk has: text, web pages, addresses, records, tables, folders, archives.

Everything is read as it is needed; whatever cannot be used comes out as a Fault in its place.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import json
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from themewire.articles import Article, BadLine, BrokenOff, Fault, parse_line, story_record
from themewire.errors import missing_extra
from themewire.storage import is_stored, opened, stored_files
from themewire.web import WebError, fetch, is_address, page_story

STDIN = "-"
SPOOL_LIMIT = 2**24
"""Bytes of standard input kept in memory while its kind is found out; more goes to a temporary file."""
STORY_LIMIT = 2**26
"""Bytes one story may have, uncompressed."""
COMPRESSED: Mapping[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
PAGES = (".html", ".htm", ".xhtml")
READABLE = (".jsonl", ".csv", ".parquet", ".txt", ".md", *PAGES)
"""What is picked up in a folder; a file that is named is read whatever it is called."""
LATIN = ("cp1250", "cp1252", "cp1254", "cp1257", "cp1258", "latin_1", "iso8859_2", "iso8859_4",
         "iso8859_9", "iso8859_15", "iso8859_16", "mac_roman", "mac_latin2", "mac_turkish")  # fmt: skip
"""Encodings that a few accents do not tell apart; English copy is by far most often in cp1252."""
BOM = b"\xef\xbb\xbf"
PARQUET_ROWS = 256


@dataclass(frozen=True)
class Given:
    """A story that can be tagged, with the other columns it came with."""

    article: Article
    columns: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    """What a person should know of how it was read."""


@dataclass(frozen=True)
class Reader:
    """How inputs are read."""

    jsonl: bool = False
    """Standard input holds a record a line."""
    allow_private: bool = False
    """Addresses in private networks may be fetched."""
    storage: bool = False
    """Addresses that are not of the web (s3://…) are files in a storage; else they are refused."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Columns that hold `id`, `title` and `text`, where they are called something else."""

    def read(self, inputs: Sequence[str], stdin: BinaryIO) -> Iterator[Given | Fault]:
        """Every story of the inputs, in order, each with its id."""
        for given in inputs:
            if given == STDIN:
                yield from self._stdin(stdin)
            elif is_address(given) and not (self.storage and is_stored(given)):
                yield self._address(given)
            else:
                for name in input_files(given):
                    yield from self._file(name)

    def _file(self, name: str) -> Iterator[Given | Fault]:
        path = Path(name)
        bare = Path(path.stem) if path.suffix.lower() in COMPRESSED else path
        suffix = bare.suffix.lower()
        try:
            with _decompressed(name) as stream:
                if suffix == ".parquet":
                    yield from self._parquet(stream, name)
                elif suffix == ".jsonl":
                    yield from self._jsonl(stream, name)
                elif suffix == ".csv":
                    yield from self._csv(stream, name)
                elif suffix in PAGES:
                    yield self._page(_whole(stream), name)
                else:
                    yield self._text(_whole(stream), name)
        except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
            yield Fault(name, 0, "file", str(error), "give a readable file")
        except OSError as error:
            # a decoder's complaint has no number, and the damage stays; a storage's may have none either
            passing = error.errno is not None or is_stored(name)
            kind = BrokenOff if passing else Fault
            yield kind(name, 0, "file", error.strerror or str(error), "give a readable file")
        except _TooLarge:
            yield Fault(name, 0, "file", f"more than {STORY_LIMIT >> 20} MiB", "split the story")

    def _stdin(self, stdin: BinaryIO) -> Iterator[Given | Fault]:
        if self.jsonl:
            yield from self._jsonl(stdin, STDIN)
            return
        with tempfile.SpooledTemporaryFile(SPOOL_LIMIT) as spooled:
            spool = cast(BinaryIO, spooled)
            shutil.copyfileobj(stdin, spool)
            spool.seek(0)
            is_jsonl = _looks_like_records(spool)
            spool.seek(0)
            if is_jsonl:
                yield from self._jsonl(spool, STDIN)
                return
            try:
                yield self._text(_whole(spool), STDIN)
            except _TooLarge:
                limit = STORY_LIMIT >> 20
                yield Fault(STDIN, 0, "text", f"more than {limit} MiB", "split it, or say --jsonl")

    def _jsonl(self, stream: BinaryIO, name: str) -> Iterator[Given | Fault]:
        for number, raw in bounded_lines(stream):
            if raw is None:
                limit = STORY_LIMIT >> 20
                yield Fault(name, number, "line", f"more than {limit} MiB", "split the story")
                continue
            try:
                record = parse_line(raw)
            except BadLine as bad:
                yield Fault(name, number, bad.field, bad.seen, bad.hint)
            else:
                yield self._record(record, name, number)

    def _record(self, record: Mapping[str, Any], name: str, number: int) -> Given | Fault:
        renamed = {key: record.get(self.names.get(key, key)) for key in ("id", "title", "text")}
        used = {self.names.get(key, key) for key in renamed}
        try:
            article = story_record(renamed)
        except BadLine as bad:
            return Fault(name, number, bad.field, bad.seen, bad.hint)
        if not article.id:
            article = article.model_copy(update={"id": f"{name}:{number}"})
        return Given(article, {key: value for key, value in record.items() if key not in used})

    def _csv(self, stream: BinaryIO, name: str) -> Iterator[Given | Fault]:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        rows = csv.DictReader(text)
        csv.field_size_limit(STORY_LIMIT)
        number = 1
        try:
            missing = self._missing(rows.fieldnames or ())
            if missing:
                yield Fault(name, 1, "header", missing, "name the columns with --title and --text")
                return
            for row in rows:
                number = rows.line_num
                plain = {key: value for key, value in row.items() if key is not None and value}
                yield self._record(plain, name, number)
        except UnicodeDecodeError as error:
            seen = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
            yield Fault(name, number, "encoding", seen, "save the file as UTF-8")
        except csv.Error as error:
            yield Fault(
                name, number + 1, "csv", str(error), "mend the row; those after it were not read"
            )

    def _missing(self, columns: Iterable[str]) -> str:
        """What is wrong with a table's columns; empty where a title or a text is among them."""
        found = list(columns)
        asked = [wanted for wanted in self.names.values() if wanted not in found]
        if asked or not {self.names.get(key, key) for key in ("title", "text")} & set(found):
            return f"the columns are {', '.join(found[:8]) or 'none'}"
        return ""

    def _parquet(self, stream: BinaryIO, name: str) -> Iterator[Given | Fault]:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise missing_extra("formats", error) from error
        number = 0
        try:
            with parquet.ParquetFile(stream) as table:
                missing = self._missing(table.schema_arrow.names)
                if missing:
                    yield Fault(name, 0, "columns", missing, "name them with --title and --text")
                    return
                for batch in table.iter_batches(PARQUET_ROWS):
                    for row in batch.to_pylist():
                        number += 1
                        yield self._record(row, name, number)
        except pyarrow.ArrowException as error:
            reason = " ".join(str(error).split())[:120]
            yield Fault(name, number, "parquet", reason, "give a readable file")

    def _text(self, raw: bytes, name: str) -> Given | Fault:
        text, note = decoded(raw)
        if text is None:
            return Fault(name, 0, "encoding", "bytes of no known encoding", "save it as UTF-8")
        try:
            return Given(story_record({"id": name, "text": text}), note=note)
        except BadLine:
            return Fault(name, 0, "text", "an empty story", "give a file with text in it")

    def _page(self, raw: bytes, name: str) -> Given | Fault:
        try:
            title, text = page_story(raw)
            return Given(story_record({"id": name, "title": title, "text": text}))
        except (WebError, BadLine) as error:
            return Fault(name, 0, "page", str(error), "give a page with a story on it")

    def _address(self, address: str) -> Given | Fault:
        try:
            raw, kind = fetch(address, self.allow_private)
        except WebError as error:
            return Fault(address, 0, "address", str(error), "give another address")
        return self._text(raw, address) if kind == "text/plain" else self._page(raw, address)


class _TooLarge(Exception):
    pass


def input_files(given: str) -> list[str]:
    """The files that a file, folder or glob pattern stands for, in sorted order."""
    suffixes = (*READABLE, *(end + more for end in READABLE for more in COMPRESSED))
    if is_stored(given):
        return stored_files(given, suffixes)
    path = Path(given)
    if path.is_dir():
        found = [
            str(file)
            for file in sorted(path.rglob("*"))
            if file.is_file() and file.name.lower().endswith(suffixes)
        ]
        return found or [given]
    if not path.exists() and glob.has_magic(given):
        return sorted(glob.glob(given, recursive=True)) or [given]
    return [given]


@contextmanager
def _decompressed(name: str) -> Iterator[BinaryIO]:
    opener = COMPRESSED.get(Path(name).suffix.lower())
    with opened(name) as raw:
        if opener is None:
            yield raw
            return
        with opener(raw, "rb") as stream:
            yield cast(BinaryIO, stream)


def _whole(stream: BinaryIO) -> bytes:
    raw = stream.read(STORY_LIMIT + 1)
    if len(raw) > STORY_LIMIT:
        raise _TooLarge
    return raw


def bounded_lines(stream: BinaryIO, limit: int = STORY_LIMIT) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not blank, trimmed, with their numbers; None for one longer than `limit`.

    A longer line is passed over piece by piece, so that it never stands in memory whole.
    """
    number = 0
    while raw := stream.readline(limit + 1):
        number += 1
        if len(raw) > limit and not raw.endswith(b"\n"):
            while piece := stream.readline(limit):
                if piece.endswith(b"\n"):
                    break
            yield number, None
            continue
        bare = (raw.removeprefix(BOM) if number == 1 else raw).strip()
        if bare:
            yield number, bare


def decoded(raw: bytes) -> tuple[str | None, str]:
    """A story's bytes as text, and a note where they were not UTF-8; None where nothing fits."""
    for encoding, mark in (("utf-8-sig", b""), ("utf-16", b"\xff\xfe"), ("utf-16", b"\xfe\xff")):
        if raw.startswith(mark):
            try:
                return raw.decode(encoding), "" if not mark else f"read as {encoding}"
            except UnicodeDecodeError:
                continue
    from charset_normalizer import from_bytes

    best = from_bytes(raw).best()
    if best is None:
        return None, ""
    encoding = best.encoding
    if encoding in LATIN:
        with suppress(UnicodeDecodeError):
            return raw.decode("cp1252"), "not UTF-8, read as cp1252"
    return str(best), f"not UTF-8, read as {encoding}"


def _looks_like_records(spool: BinaryIO) -> bool:
    """Whether every line that is not blank is a JSON object with `text` or `title`."""
    found = False
    for _, bare in bounded_lines(spool):
        if bare is None or not bare.startswith(b"{"):
            return False
        try:
            record = json.loads(bare)
        except (ValueError, RecursionError):
            return False
        if not ("text" in record or "title" in record):
            return False
        found = True
    return found
