"""One model family a file, behind one small protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from themewire.config import Config, LinearConfig
from themewire.errors import UsageError
from themewire.taggers.base import Tagger
from themewire.taggers.encoder import EncoderTagger, fit_encoder
from themewire.taggers.linear import LinearTagger, fit_linear
from themewire.text import Story
from themewire.themes import LabelArray


def load_tagger(kind: str, folder: Path) -> Tagger:
    """The tagger whose files lie in a bundle's folder.

    Raises:
        UsageError: a kind this version does not know.
    """
    if kind == "linear":
        return LinearTagger.load(folder)
    if kind == "encoder":
        return EncoderTagger.load(folder, kind)
    raise UsageError(f"{folder}: refused: tagger {kind!r} is not known here; upgrade themewire")


def fit_tagger(
    config: Config, stories: Sequence[Story], labels: LabelArray, names: Sequence[str]
) -> Tagger:
    """Train the tagger a configuration names; labels have shape (n_stories, n_themes)."""
    tagger, seed = config.tagger, config.split.seed
    if isinstance(tagger, LinearConfig):
        return fit_linear(stories, labels, names, tagger, seed)
    return fit_encoder(stories, labels, names, tagger, seed)
