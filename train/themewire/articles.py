"""What a story is, and how records are read: every fault is named, every good record goes through."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StrictStr, StringConstraints, ValidationError

from themewire.errors import InputRefused
from themewire.themes import Taxonomy

DATE = r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?"
SEEN_LIMIT = 60
"""How many characters of a wrong value a fault shows."""


class Article(BaseModel):
    """One story as the records hold it; `title` and `text` are kept as given, to the character."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: StrictStr = ""
    title: StrictStr = ""
    text: StrictStr = ""
    themes: tuple[StrictStr, ...] = ()
    evidence: Mapping[StrictStr, tuple[StrictStr, ...]] = Field(default_factory=dict)
    genre: StrictStr | None = None
    published: Annotated[StrictStr, StringConstraints(pattern=f"^{DATE}$")] | None = None
    countries: tuple[Annotated[StrictStr, StringConstraints(pattern=r"^[A-Z]{2}$")], ...] = ()
    source: StrictStr | None = None

    @property
    def whole(self) -> str:
        """Title and text as one string, for counting words and finding duplicates."""
        return f"{self.title}\n{self.text}" if self.title else self.text


FIELDS = tuple(Article.model_fields)
HINTS = {
    "id": "write a string that no other record has",
    "title": "write a string",
    "text": "write a string",
    "themes": "write a list of theme names",
    "evidence": "write an object of theme names, each with a list of sentences",
    "genre": "write a string",
    "published": "write a date: 2014, 2014-08 or 2014-08-13",
    "countries": "write a list of two-letter ISO 3166 codes in capitals",
    "source": "write a string",
}


class Fault(NamedTuple):
    """One thing wrong in one place: `FILE:LINE: field: value seen, what to do`."""

    path: str
    line: int
    field: str
    seen: str
    hint: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.field}: {self.seen}, {self.hint}"


class BrokenOff(Fault):
    """A file that could not be read to its end, though another try may do so."""


class BadLine(ValueError):
    """A line that is no JSON object; carries what was seen and what to do."""

    def __init__(self, seen: str, hint: str, field_name: str = "line") -> None:
        super().__init__(f"{seen}, {hint}")
        self.seen, self.hint, self.field = seen, hint, field_name


def shown(value: object) -> str:
    """A value on one line, cut to a length that fits a terminal."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= SEEN_LIMIT else text[: SEEN_LIMIT - 1] + "…"


def collapsed(text: str) -> str:
    """Text with every run of white space as one space, ends trimmed."""
    return " ".join(text.split())


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadLine(f"{shown(twice)} stands twice", "keep one of the two", field_name=twice)
    return record


def parse_line(raw: bytes) -> dict[str, Any]:
    """The JSON object on one line; keys whose value is `null` are left out.

    Raises:
        BadLine: broken UTF-8, broken JSON, or JSON that is no object.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        raise BadLine(
            f"byte 0x{byte:02x} at position {error.start + 1} is not UTF-8",
            "save the file as UTF-8",
            field_name="encoding",
        ) from error
    try:
        record = json.loads(text, object_pairs_hook=_object_without_repeats)
    except BadLine:
        raise
    except RecursionError as error:
        raise BadLine("JSON nested too deeply", "write one flat object a line", "json") from error
    except ValueError as error:
        position = getattr(error, "pos", 0)
        reason = getattr(error, "msg", str(error))
        raise BadLine(
            f"{shown(text[max(0, position - 10) : position + 20].strip())} at column {position + 1}"
            f" ({reason})",
            "write one JSON object a line",
            field_name="json",
        ) from error
    if not isinstance(record, dict):
        raise BadLine(shown(record), "write one JSON object a line", field_name="json")
    return {key: value for key, value in record.items() if value is not None}


def _validation_faults(error: ValidationError) -> Iterator[tuple[str, str, str]]:
    """(field, seen, hint) of each thing pydantic refused."""
    for item in error.errors(include_url=False):
        name = str(item["loc"][0])
        where = name + "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"][1:]
        )
        if item["type"] == "extra_forbidden":
            close = get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(FIELDS)}"
            yield name, f"unknown key with the value {shown(item['input'])}", hint
        else:
            yield where, shown(item["input"]), HINTS[name]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def article_faults(
    record: Mapping[str, Any], taxonomy: Taxonomy
) -> tuple[Article | None, list[tuple[str, str, str]]]:
    """The article of a training record, or every (field, seen, hint) that keeps it from being one."""
    faults: list[tuple[str, str, str]] = []
    article: Article | None = None
    try:
        article = Article.model_validate(_without_nulls(record))
    except ValidationError as error:
        faults.extend(_validation_faults(error))
    wrong = {name.split("[")[0].split(".")[0] for name, _, _ in faults}

    def good(name: str, kind: type) -> Any:
        value = record.get(name)
        return value if name not in wrong and isinstance(value, kind) else kind()

    if "id" not in wrong and not good("id", str).strip():
        faults.append(("id", shown(record.get("id", "absent")), HINTS["id"]))
    title, text = good("title", str), good("text", str)
    if not wrong & {"title", "text"} and not title.strip() and not text.strip():
        faults.append(("text", "neither title nor text", "give at least one of them"))
    for name, value in (("title", title), ("text", text), ("id", good("id", str))):
        if not _is_text(value):
            faults.append((name, "half of a surrogate pair", "write whole characters"))
    themes = [name for name in good("themes", list) if isinstance(name, str)]
    for position, name in enumerate(themes):
        if name not in taxonomy:
            close = get_close_matches(name, taxonomy.names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else _names_hint(taxonomy)
            faults.append((f"themes[{position}]", f"unknown theme {shown(name)}", hint))
        elif name in themes[:position]:
            faults.append((f"themes[{position}]", f"{shown(name)} again", "name each theme once"))
    whole = (collapsed(title), collapsed(text))
    for name, sentences in good("evidence", dict).items():
        if "themes" not in wrong and name not in themes:
            faults.append((f"evidence.{name}", "a theme the record does not have",
                           "add it to themes or take its evidence out"))  # fmt: skip
        for position, sentence in enumerate(sentences if isinstance(sentences, list) else ()):
            if not isinstance(sentence, str):
                continue
            bare = collapsed(sentence)
            # where the text itself is at fault, its evidence would only repeat that
            if any(whole) and (not bare or not any(bare in part for part in whole)):
                faults.append((f"evidence.{name}[{position}]", shown(sentence),
                               "copy the sentence as it stands in title or text"))  # fmt: skip
    return (None if faults else article), faults


def _names_hint(taxonomy: Taxonomy) -> str:
    names = ", ".join(taxonomy.names[:8]) + (", …" if len(taxonomy) > 8 else "")
    return f"the taxonomy has {names}"


@dataclass(frozen=True)
class Reading:
    """What came out of reading training records: the good ones, where each stood, and the faults."""

    articles: list[Article] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    digest: str = ""
    """sha256 over the records' content in reading order."""

    def require_sound(self) -> None:
        """Raises InputRefused if any record was bad."""
        if self.faults:
            raise InputRefused(
                f"{len(self.faults)} faults in {len({f[:2] for f in self.faults})} records; "
                f"{len(self.articles)} records are good; mend the faults and start again"
            )
        if not self.articles:
            raise InputRefused("no articles found; see data/README.md for how to add some")


def article_files(paths: Iterable[Path | str]) -> list[Path]:
    """The JSONL files that files, folders and glob patterns stand for, each once, in sorted order.

    Raises:
        InputRefused: a path that is not there, or a folder or pattern without JSONL files.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if path.is_dir():
            files = sorted(path.rglob("*.jsonl"))
        elif path.exists():
            files = [path]
        else:
            files = sorted(Path(name) for name in glob.glob(str(given), recursive=True))
        if not files:
            raise InputRefused(
                f"{given}: no articles there; give a .jsonl file or a folder of them"
            )
        found.update(dict.fromkeys(files))
    return list(found)


def numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, trimmed, with their numbers; a byte-order mark is dropped."""
    for number, raw in enumerate(lines, 1):
        bare = raw.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else raw.strip()
        if bare:
            yield number, bare


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers.

    Raises:
        InputRefused: the file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            yield from numbered(lines)
    except OSError as error:
        raise InputRefused(f"{path}: cannot be read: {error.strerror or error}") from error


def read_articles(paths: Sequence[Path | str], taxonomy: Taxonomy) -> Reading:
    """Read labelled articles, line by line, and every fault in them.

    Raises:
        InputRefused: a file or folder that is not there or cannot be read.
    """
    reading: dict[str, str] = {}
    articles: list[Article] = []
    places: list[str] = []
    faults: list[Fault] = []
    digest = hashlib.sha256()
    for path in article_files(paths):
        for number, raw in read_lines(path):
            try:
                record = parse_line(raw)
            except BadLine as bad:
                faults.append(Fault(str(path), number, bad.field, bad.seen, bad.hint))
                continue
            article, wrong = article_faults(record, taxonomy)
            ident = record.get("id")
            if isinstance(ident, str) and ident.strip():
                if ident in reading:
                    wrong.append(("id", shown(ident), f"{reading[ident]} has it too; change one"))
                else:
                    reading[ident] = f"{path}:{number}"
            faults.extend(Fault(str(path), number, *item) for item in wrong)
            if article is not None and not wrong:
                articles.append(article)
                places.append(f"{path}:{number}")
                digest.update(
                    json.dumps(article.model_dump(mode="json"), sort_keys=True).encode() + b"\n"
                )
    return Reading(articles, places, faults, digest.hexdigest())


def story_record(record: Mapping[str, Any]) -> Article:
    """The story of a record to be tagged: `id`, `title` and `text`; every other key is ignored.

    Raises:
        BadLine: one of the three is no string, or neither title nor text holds any.
    """
    story = {}
    for name in ("id", "title", "text"):
        value = record.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise BadLine(shown(value), HINTS[name], field_name=name)
        story[name] = value
    if not story.get("title", "").strip() and not story.get("text", "").strip():
        raise BadLine("neither title nor text", "give at least one of them", field_name="text")
    return Article.model_construct(
        None,
        id=story.get("id", ""),
        title=story.get("title", ""),
        text=story.get("text", ""),
        themes=(),
        evidence={},
        countries=(),
    )
