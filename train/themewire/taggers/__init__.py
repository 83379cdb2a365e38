"""One model family a file, behind one small protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from themewire.config import FinetuneConfig, LinearConfig, MemberConfig, StackConfig, TaggerConfig
from themewire.errors import UsageError
from themewire.taggers.base import Listener, Tagger
from themewire.taggers.cascade import Gate
from themewire.taggers.combiner import Combiner
from themewire.taggers.encoder import EncoderTagger, fit_encoder
from themewire.taggers.linear import LinearTagger, fit_linear
from themewire.taggers.stack import StackTagger
from themewire.text import Story
from themewire.themes import LabelArray


def load_tagger(kind: str, folder: Path, cascade: bool = False) -> Tagger:
    """The tagger whose files lie in a bundle's folder; with `cascade`, a stack's encoder skips what words rule out.

    Raises:
        UsageError: a kind this version does not know.
    """
    if kind == "linear":
        return LinearTagger.load(folder)
    if kind in ("encoder", "finetune"):
        return EncoderTagger.load(folder, kind)
    if kind == "stack":
        return StackTagger.load(folder, cascade)
    raise UsageError(f"{folder}: refused: tagger {kind!r} is not known here; upgrade themewire")


def assemble(
    fitted: Sequence[Tagger],
    combiner: Combiner | None,
    gate: Gate | None = None,
    *,
    cascade: bool = False,
) -> Tagger:
    """The one family that was fitted, or the stack of two, with its cascade if wished."""
    if combiner is None:
        return fitted[0]
    linear, sentences = fitted
    if not (isinstance(linear, LinearTagger) and isinstance(sentences, EncoderTagger)):
        raise TypeError(f"a stack of {linear.kind} and {sentences.kind}")
    return StackTagger(linear, sentences, combiner, gate, cascade)


def members(config: TaggerConfig) -> tuple[MemberConfig, ...]:
    """The families that a configuration trains: a stack's members, or the one it names."""
    return (config.linear, config.sentences) if isinstance(config, StackConfig) else (config,)


def fit_member(
    config: MemberConfig,
    stories: Sequence[Story],
    labels: LabelArray,
    names: Sequence[str],
    seed: int,
    listener: Listener | None = None,
) -> Tagger:
    """Train one family; labels have shape (n_stories, n_themes).

    A family that learns in steps tells the `listener` their figures.
    """
    if isinstance(config, LinearConfig):
        return fit_linear(stories, labels, names, config, seed)
    if isinstance(config, FinetuneConfig):
        from themewire.taggers.finetune import fit_finetune

        return fit_finetune(stories, labels, names, config, seed, listener)
    return fit_encoder(stories, labels, names, config, seed)
