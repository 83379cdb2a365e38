"""The taxonomy: which themes there are, in the order of every array's columns."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from themewire.errors import UsageError

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
"""Names go into MLflow metric names, file columns and command lines, so they stay plain."""

LabelArray = npt.NDArray[np.int8]


class Theme(BaseModel):
    """One label: a short `name`, a `title` for people, and the `definition` labellers work by."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
    title: str = ""
    definition: str = ""


class Taxonomy:
    """The ordered themes.

    Raises:
        UsageError: no themes, or a name given twice.
    """

    def __init__(self, themes: Sequence[Theme]) -> None:
        self.themes = tuple(themes)
        self.names = tuple(theme.name for theme in self.themes)
        self._column = {name: column for column, name in enumerate(self.names)}
        if not self.themes:
            raise UsageError("taxonomy: no themes given; name at least one")
        if len(self._column) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise UsageError(f"taxonomy: theme {twice!r} is given twice; names must differ")

    def __len__(self) -> int:
        return len(self.themes)

    def __contains__(self, name: object) -> bool:
        return name in self._column

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Taxonomy) and self.themes == other.themes

    def __hash__(self) -> int:
        return hash(self.themes)

    def column(self, name: str) -> int:
        """The column of a theme in every array."""
        return self._column[name]

    def title(self, name: str) -> str:
        """What people read for a theme: its title, else its name."""
        return self.themes[self.column(name)].title or name

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names, each once, in taxonomy order."""
        return tuple(sorted(set(names), key=self.column))

    def label_array(self, themes: Sequence[Iterable[str]]) -> LabelArray:
        """The 0/1 array, shape (n_articles, n_themes), of the themes of each article."""
        labels = np.zeros((len(themes), len(self)), dtype=np.int8)
        for row, names in enumerate(themes):
            for name in names:
                labels[row, self.column(name)] = 1
        return labels

    def to_json(self) -> str:
        """The taxonomy as it lies in a bundle."""
        return json.dumps(
            {"themes": [theme.model_dump() for theme in self.themes]}, indent=1, ensure_ascii=False
        )

    @classmethod
    def from_json(cls, text: str) -> Taxonomy:
        """The taxonomy out of a bundle."""
        return cls([Theme.model_validate(theme) for theme in json.loads(text)["themes"]])

    @property
    def digest(self) -> str:
        """A sha256 over names and order: what two models must share to be compared."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()


def read_taxonomy(path: Path) -> Taxonomy:
    """The taxonomy of a TOML file with one `[[theme]]` table a theme.

    Raises:
        UsageError: the file cannot be read, or a theme in it is not as declared.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: taxonomy cannot be read: {error}") from error
    unknown = sorted(set(data) - {"theme"})
    if unknown:
        raise UsageError(f"{path}: unknown key {unknown[0]!r}; only [[theme]] tables stand here")
    themes = []
    for number, table in enumerate(data.get("theme", []), 1):
        try:
            themes.append(Theme.model_validate(table))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise UsageError(
                f"{path}: theme {number}: {field}: {first['input']!r}: {first['msg']}"
            ) from error
    return Taxonomy(themes)


def plain_taxonomy(names: Sequence[str]) -> Taxonomy:
    """A taxonomy of bare names, in the order given.

    Raises:
        UsageError: a name has characters that file columns and metric names cannot carry.
    """
    for name in names:
        if not re.fullmatch(NAME_PATTERN, name):
            raise UsageError(
                f"taxonomy.names: {name!r}: use letters, digits, '_', '-' and '.' in theme names"
            )
    return Taxonomy([Theme(name=name) for name in names])
