"""`stack`: `linear` and a tagger that reads sentences, their scores weighed against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from themewire.taggers.base import Scan, Scores, Tagger
from themewire.taggers.cascade import Gate
from themewire.taggers.combiner import Combiner, load_combiner, save_combiner
from themewire.taggers.encoder import EncoderTagger
from themewire.taggers.linear import LinearTagger
from themewire.text import Story

MEMBERS = ("linear", "sentences")
"""Folders of the members in a bundle, in the order of the weights."""
WEIGHTS = "stack.safetensors"
GATE = "gate.safetensors"


@dataclass(frozen=True)
class StackScan:
    """The members' scans, weighed."""

    combiner: Combiner
    parts: Sequence[Scan]

    @property
    def scores(self) -> Scores:
        """Shape (n_stories, n_themes)."""
        return self.combiner([part.scores for part in self.parts])

    def sentence_scores(self, rows: Sequence[int]) -> Sequence[Scores]:
        """Of these stories, shape (n_sentences, n_themes) each."""
        found = [part.sentence_scores(rows) for part in self.parts]
        return [self.combiner(own) for own in zip(*found, strict=True)]


class StackTagger:
    """`linear`, a member that reads sentences, and the weights of their scores."""

    kind = "stack"

    def __init__(
        self,
        linear: LinearTagger,
        sentences: EncoderTagger,
        combiner: Combiner,
        gate: Gate | None = None,
        cascade: bool = False,
    ) -> None:
        self.linear = linear
        self.sentences = sentences
        self.combiner = combiner
        self.gate = gate
        self.cascade = cascade
        """Whether sentences that the gate rules out stay unread by the other member."""

    def scan(self, stories: Sequence[Story]) -> StackScan:
        """Read stories with `linear`, and the sentences not ruled out with the other member too."""
        first = self.linear.scan(stories)
        if not self.cascade or self.gate is None:
            return StackScan(self.combiner, [first, self.sentences.scan(stories)])
        read = self.gate.lets_through(
            self.sentences.encoder, stories, first.sentence_scores(range(len(stories)))
        )
        second = self.sentences.scan_part(stories, read, self.gate.floor)
        return StackScan(self.combiner, [first, second])

    def save(self, folder: Path) -> None:
        """Write each member into a folder of its own, and `stack.safetensors`."""
        members: tuple[Tagger, Tagger] = (self.linear, self.sentences)
        for name, member in zip(MEMBERS, members, strict=True):
            (folder / name).mkdir()
            member.save(folder / name)
        save_combiner(self.combiner, folder / WEIGHTS)
        if self.gate is not None:
            self.gate.save(folder / GATE)

    @classmethod
    def load(cls, folder: Path, cascade: bool) -> StackTagger:
        """Read what `save` wrote."""
        linear, sentences = (folder / name for name in MEMBERS)
        gate = Gate.load(folder / GATE) if (folder / GATE).exists() else None
        return cls(
            LinearTagger.load(linear),
            EncoderTagger.load(sentences, "encoder"),
            load_combiner(folder / WEIGHTS),
            gate,
            cascade,
        )
