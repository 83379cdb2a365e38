"""What every tagger offers, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from themewire.text import Story

Scores = npt.NDArray[np.float32]

Listener = Callable[[Mapping[str, float], int], None]
"""Hears of the figures of a step while a tagger learns."""

UNLEARNED = -30.0
"""The score of a theme without a single example: far below any learned one, so no cut admits it."""


class Scan(Protocol):
    """What a tagger found in a batch of stories."""

    @property
    def scores(self) -> Scores:
        """Raw article scores, shape (n_stories, n_themes)."""

    def sentence_scores(self, rows: Sequence[int]) -> Sequence[Scores]:
        """Raw scores of the sentences of these stories, shape (n_sentences, n_themes) each."""


class Tagger(Protocol):
    """A model family: reads stories, gives a raw score for each story and theme."""

    kind: str

    def scan(self, stories: Sequence[Story]) -> Scan:
        """Read stories; sentence scores are worked out only where asked for."""

    def save(self, folder: Path) -> None:
        """Write the tagger's own files into an existing folder."""
