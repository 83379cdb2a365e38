"""Labelled articles from and to other tools: CSV, Parquet, data set folders, Label Studio."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from themewire.articles import FIELDS, Article, Fault, article_faults
from themewire.errors import InputRefused, UsageError
from themewire.text import Story, evidence_spans, utf16
from themewire.themes import Taxonomy

if TYPE_CHECKING:
    from themewire.audit import Suspect
    from themewire.predict import Prediction

LISTS = ("themes", "countries")
SEPARATORS = ("|", ";", ",")
"""What may stand between the values of a list in one cell, the first that occurs."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold a record's fields, where they are not the fields' own."""

    id: str = "id"
    title: str = "title"
    text: str = "text"
    themes: str = "themes"


def read_records(
    path: Path, columns: Columns, taxonomy: Taxonomy
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a file or data set folder, each with its row, from 1.

    Themes are a list, names in one cell, or a column for each theme that holds 1 or true.

    Raises:
        InputRefused: a file that cannot be read as what its name says.
        UsageError: a kind of file that is not known here, or a column that is not there.
    """
    if not path.exists():
        raise InputRefused(f"{path}: no such file or folder")
    if path.suffix.lower() == ".json":
        yield from enumerate(map(_from_task, _read_tasks(path)), 1)
        return
    rows = _read_rows(path)
    first = next(rows, None)
    if first is None:
        raise InputRefused(f"{path}: no rows in it")
    rows = chain([first], rows)
    for name, column in vars(columns).items():
        if column != name and column not in first:
            raise UsageError(f"{path}: no column {column!r}; it has {', '.join(map(str, first))}")
    for number, row in enumerate(rows, 1):
        yield number, _from_row(row, columns, taxonomy)


def _read_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    import datasets
    import pandas as pd

    try:
        if path.is_dir():
            found = datasets.load_from_disk(str(path))
            parts = found.values() if isinstance(found, datasets.DatasetDict) else [found]
            for part in parts:
                yield from part
            return
        if path.suffix.lower() == ".csv":
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        elif path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        else:
            raise UsageError(
                f"{path}: import reads .csv, .parquet, Label Studio's .json and data set folders"
            )
    except (OSError, ValueError) as error:
        # ParserError and ArrowInvalid are ValueErrors, a folder that is no data set an OSError
        raise InputRefused(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    for row in frame.to_dict("records"):
        yield {str(name): value for name, value in row.items()}


def _from_row(row: Mapping[str, Any], columns: Columns, taxonomy: Taxonomy) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name in FIELDS:
        value = _plain(row.get(getattr(columns, name, name)))
        if value is None or value == "":
            continue
        if name in LISTS:
            record[name] = _as_list(value)
        elif name == "evidence":
            record[name] = _as_evidence(value)
        else:
            record[name] = str(value)
    if columns.themes not in row:
        record["themes"] = [name for name in taxonomy.names if _is_true(_plain(row.get(name)))]
    return record


def _plain(value: Any) -> Any:
    """Arrays as lists, numbers of pandas as Python's, missing values as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if value != value else value  # noqa: PLR0124 - only NaN differs from itself


def _as_list(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    value = str(value)
    if value.startswith("["):
        try:
            return [str(item) for item in json.loads(value)]
        except ValueError:
            pass
    separator = next((found for found in SEPARATORS if found in value), None)
    parts = value.split(separator) if separator else [value]
    return [part.strip() for part in parts if part.strip()]


def _as_evidence(value: Any) -> Any:
    """An object, from a cell that holds one as JSON too; what is none is left for the reader to refuse."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if not isinstance(value, Mapping):
        return value
    return {theme: list(_plain(found)) for theme, found in value.items() if _plain(found)}


def _is_true(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("1", "1.0", "true", "yes", "x")
    return bool(value)


def _read_tasks(path: Path) -> list[dict[str, Any]]:
    try:
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputRefused(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(tasks, list) or not all(isinstance(t, dict) and "data" in t for t in tasks):
        raise InputRefused(f"{path}: not Label Studio's JSON export: a list of tasks with `data`")
    return tasks


def _from_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a task: its data, with the labels of the last annotation that was not cancelled."""
    data = task["data"] if isinstance(task["data"], dict) else {}
    record = {
        name: value for name, value in data.items() if name in FIELDS and value not in (None, "")
    }
    record.setdefault("id", str(task.get("id", "")))
    given = task.get("annotations")
    done = [a for a in given or () if isinstance(a, dict) and not a.get("was_cancelled")]
    if not done:
        return record
    themes: dict[str, None] = {}
    evidence: dict[str, list[str]] = {}
    for result in done[-1].get("result") or ():
        value = result.get("value") or {}
        themes |= dict.fromkeys(value.get("choices") or ())
        for theme in value.get("labels") or ():
            # a marked sentence is a theme given, whether or not its box was ticked
            themes[theme] = None
            evidence.setdefault(theme, []).append(str(value.get("text", "")))
    return record | {"themes": list(themes), "evidence": evidence}


def good_articles(path: Path, columns: Columns, taxonomy: Taxonomy) -> Iterator[Article | Fault]:
    """Each record as an article, or every fault that keeps it from being one."""
    seen: dict[str, int] = {}
    for number, record in read_records(path, columns, taxonomy):
        article, faults = article_faults(record, taxonomy)
        if article is not None and article.id in seen:
            faults = [("id", repr(article.id), f"row {seen[article.id]} has it too; change one")]
        if article is None or faults:
            yield from (Fault(str(path), number, *fault) for fault in faults)
            continue
        seen[article.id] = number
        yield article


def _results(article: Article, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """An article's themes and evidence as Label Studio has them.

    Places of marked sentences are in UTF-16 units, as a browser counts them.
    """
    result: list[dict[str, Any]] = []
    if article.themes:
        result.append(
            {"from_name": "themes", "to_name": "text", "type": "choices",
             "value": {"choices": list(article.themes)}}
        )  # fmt: skip
    story = Story(article)
    for theme in taxonomy.names:
        for field, start, end in evidence_spans(story, theme):
            text = getattr(article, field)
            result.append(
                {"from_name": f"evidence_{field}", "to_name": field, "type": "labels",
                 "value": {"start": utf16(text[:start]), "end": utf16(text[:end]),
                           "text": text[start:end], "labels": [theme]}}
            )  # fmt: skip
    return result


def _data(article: Article) -> dict[str, Any]:
    """An article's fields without its labels."""
    data = article.model_dump(mode="json", exclude_defaults=True, exclude={"themes", "evidence"})
    return {"title": "", "text": "", **data}


def to_task(article: Article, taxonomy: Taxonomy) -> dict[str, Any]:
    """A Label Studio task of an article, its themes and evidence as a finished annotation."""
    return {"data": _data(article), "annotations": [{"result": _results(article, taxonomy)}]}


def audit_tasks(suspects: Sequence[Suspect], taxonomy: Taxonomy) -> str:
    """Label Studio tasks of suspected labels, a task a story, what is suspected in its `meta`."""
    tasks: dict[str, dict[str, Any]] = {}
    for each in suspects:
        task = tasks.setdefault(each.article.id, to_task(each.article, taxonomy) | {"meta": {}})
        says = "labelled, looks wrong" if each.labelled else "not labelled, looks forgotten"
        task["meta"][each.theme] = f"{says} (quality {each.quality:.3f}): {each.sentence}"
    return json.dumps(list(tasks.values()), ensure_ascii=False, indent=1)


def prefilled_tasks(found: Sequence[tuple[Article, Prediction]], taxonomy: Taxonomy) -> str:
    """Label Studio tasks of unlabelled stories, the model's tags and best sentences filled in."""
    tasks = []
    for article, prediction in found:
        evidence = {theme: [best[0].text] for theme, best in prediction.evidence.items() if best}
        tagged = article.model_copy(
            update={"themes": tuple(prediction.themes), "evidence": evidence}
        )
        tasks.append(
            {
                "data": _data(article),
                "predictions": [
                    {"model_version": prediction.model, "result": _results(tagged, taxonomy)}
                ],
            }
        )
    return json.dumps(tasks, ensure_ascii=False, indent=1)


def labelling_interface(taxonomy: Taxonomy) -> str:
    """The labelling interface that the tasks fit, as Label Studio's XML."""
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in taxonomy.names)
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in taxonomy.names)
    marks = "\n".join(
        f'  <Labels name="evidence_{field}" toName="{field}">\n{labels}\n  </Labels>\n'
        f'  <Text name="{field}" value="${field}"/>'
        for field in ("title", "text")
    )
    return (
        f'<View>\n{marks}\n  <Choices name="themes" toName="text" choice="multiple">\n'
        f"{choices}\n  </Choices>\n</View>\n"
    )


def write_tasks(articles: Sequence[Article], taxonomy: Taxonomy) -> str:
    """Label Studio tasks as JSON."""
    tasks = [to_task(article, taxonomy) for article in articles]
    return json.dumps(tasks, ensure_ascii=False, indent=1)
