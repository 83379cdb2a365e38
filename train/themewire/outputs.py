"""Results as JSON lines, CSV or Parquet, written as they come."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from themewire.errors import missing_extra
from themewire.inputs import Given
from themewire.predict import Prediction
from themewire.text import encodable

logger = logging.getLogger(__name__)

PARQUET_ROWS = 4096


def flat_row(found: Prediction, given: Given) -> dict[str, Any]:
    """A result as one row: the input's other columns, then a column for each probability."""
    return {
        **{key: value for key, value in given.columns.items() if key not in ("id", "themes")},
        "id": found.id,
        "themes": "|".join(found.themes),
        **{f"p_{theme}": value for theme, value in found.probabilities.items()},
        "evidence": json.dumps(found.to_dict()["evidence"], ensure_ascii=False),
        "review": found.review,
        "review_reasons": "|".join(found.review_reasons),
        "model": found.model,
    }


class JsonlWriter:
    """A record a line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, found: Prediction, given: Given) -> None:
        """Write one result."""
        print(json.dumps(found.to_dict(), ensure_ascii=False), file=self.stream)


class CsvWriter:
    """A row a story; the columns are those of the first one, and others are warned of."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.rows: csv.DictWriter[str] | None = None
        self.known: set[str] = set()

    def write(self, found: Prediction, given: Given) -> None:
        """Write one result; cells that a spreadsheet would run as a formula get an apostrophe."""
        row = {key: _cell(value) for key, value in flat_row(found, given).items()}
        if self.rows is None:
            self.rows = csv.DictWriter(self.stream, list(row), extrasaction="ignore", restval="")
            self.rows.writeheader()
            self.known = set(row)
        for name in row.keys() - self.known:
            self.known.add(name)
            logger.warning(
                "%s: column %r is left out: the first story does not have it; Parquet keeps every column",
                found.id, name,
            )  # fmt: skip
        self.rows.writerow(row)


def _cell(value: Any) -> Any:
    return (
        f"'{value}"
        if isinstance(value, str) and value[:1] in ("=", "+", "@", "\t", "\r")
        else value
    )


def _whole_characters(value: Any) -> Any:
    """The same with halves of surrogate pairs replaced, which Parquet's text cannot hold."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {key: _whole_characters(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_whole_characters(item) for item in value)
    return value


class ParquetWriter:
    """Rows with lists and numbers as such; the input's other columns as text."""

    def __init__(self, path: Path, themes: Sequence[str]) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError as error:
            raise missing_extra("formats", error) from error
        self.pa = pa
        sentence = pa.struct(
            [("field", pa.string()), ("text", pa.string()), ("start", pa.int64()),
             ("end", pa.int64()), ("score", pa.float64())]
        )  # fmt: skip
        self.schema = pa.schema(
            [
                ("id", pa.string()),
                ("themes", pa.list_(pa.string())),
                *((f"p_{theme}", pa.float64()) for theme in themes),
                ("evidence", pa.map_(pa.string(), pa.list_(sentence))),
                ("review", pa.bool_()),
                ("review_reasons", pa.list_(pa.string())),
                ("model", pa.string()),
                ("columns", pa.map_(pa.string(), pa.string())),
            ]
        )
        self.file = parquet.ParquetWriter(path, self.schema)
        self.rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()
        self.file.close()

    def write(self, found: Prediction, given: Given) -> None:
        """Write one result."""
        record = found.to_dict()
        probabilities = record.pop("probabilities")
        record |= {f"p_{theme}": value for theme, value in probabilities.items()}
        record["evidence"] = list(record["evidence"].items())
        record["columns"] = [
            (key, value if isinstance(value, str) else json.dumps(value, default=str))
            for key, value in given.columns.items()
        ]
        self.rows.append(_whole_characters(record))
        if len(self.rows) >= PARQUET_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            self.file.write_table(self.pa.Table.from_pylist(self.rows, self.schema))
            self.rows = []
