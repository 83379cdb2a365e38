"""`encoder`: a small head scores every sentence from its frozen vector; the article pools them.

A theme is carried by a sentence or two, so an article is a bag of sentences of which at least one
carries the theme (multiple-instance learning; Dietterich et al. 1997). The bag's score is a smooth
maximum of its sentences' (log-sum-exp, as Ramon and De Raedt 2000 pool instances in a network),
whose sharpness is learned with the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from themewire.config import EncoderConfig, HeadSettings
from themewire.encoder import Encoder, OnnxEncoder, Vectors
from themewire.taggers.base import UNLEARNED, Scores
from themewire.text import Story, sentence_labels
from themewire.themes import LabelArray

if TYPE_CHECKING:
    import torch

HEAD = "head.safetensors"
START_SHARPNESS = 4.0


@dataclass(frozen=True)
class Head:
    """One hidden layer of rectified units: vectors to scores, both a row a sentence."""

    inner: Scores
    """Shape (size, hidden)."""
    inner_bias: Scores
    outer: Scores
    """Shape (hidden, n_themes)."""
    outer_bias: Scores
    sharpness: float
    """How near the pooled score comes to the plain maximum."""

    def sentence_scores(self, vectors: Vectors) -> Scores:
        """Shape (n_sentences, n_themes)."""
        hidden = np.maximum(vectors @ self.inner + self.inner_bias, 0.0)
        return np.asarray(hidden @ self.outer + self.outer_bias, dtype=np.float32)

    def pool(self, scores: Scores) -> Scores:
        """The article's score of each theme, shape (n_themes,), from its sentences'."""
        if not len(scores):
            return np.full(scores.shape[1], UNLEARNED, dtype=np.float32)
        top = scores.max(axis=0)
        total = np.exp(self.sharpness * (scores - top)).sum(axis=0)
        return np.asarray(top + np.log(total) / self.sharpness, dtype=np.float32)


@dataclass(frozen=True)
class EncoderScan:
    """Article scores and the sentence scores they were pooled from."""

    scores: Scores
    sentences: Sequence[Scores]

    def sentence_scores(self, rows: Sequence[int]) -> Sequence[Scores]:
        """Of these stories, shape (n_sentences, n_themes) each."""
        return [self.sentences[row] for row in rows]


class EncoderTagger:
    """An encoder and the head on it; `finetune` leaves one too, with an encoder of its own."""

    def __init__(self, encoder: Encoder, head: Head, kind: str = "encoder") -> None:
        self.encoder = encoder
        self.head = head
        self.kind = kind

    def scan(self, stories: Sequence[Story]) -> EncoderScan:
        """Read every sentence of every story."""
        every = [np.ones(len(story.sentences), dtype=np.bool_) for story in stories]
        return self.scan_part(stories, every, np.zeros_like(self.head.outer_bias))

    def scan_part(
        self, stories: Sequence[Story], read: Sequence[npt.NDArray[np.bool_]], floor: Scores
    ) -> EncoderScan:
        """Read the sentences that `read` marks, shape (n_sentences,) for each story.

        The others score the `floor`, shape (n_themes,).
        """
        marked = np.concatenate([np.empty(0, np.bool_), *read])
        sentences = [s.text for story in stories for s in story.sentences]
        chosen = [sentences[place] for place in np.flatnonzero(marked).tolist()]
        scores = np.tile(floor, (len(sentences), 1))
        if chosen:
            scores[marked] = self.head.sentence_scores(self.encoder.encode(chosen))
        found = np.split(scores, np.cumsum([len(own) for own in read])[:-1])
        pooled = np.array([self.head.pool(scores) for scores in found], dtype=np.float32)
        return EncoderScan(pooled, found)

    def save(self, folder: Path) -> None:
        """Write the encoder's files and `head.safetensors`."""
        self.encoder.save(folder)
        save_head(self.head, folder / HEAD)

    @classmethod
    def load(cls, folder: Path, kind: str) -> EncoderTagger:
        """Read what `save` wrote."""
        return cls(OnnxEncoder.load(folder), load_head(folder / HEAD), kind)


def save_head(head: Head, path: Path) -> None:
    """Write a head as safetensors."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "inner": head.inner,
        "inner_bias": head.inner_bias,
        "outer": head.outer,
        "outer_bias": head.outer_bias,
        "sharpness": np.array([head.sharpness]),
    }
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def load_head(path: Path) -> Head:
    """Read what `save_head` wrote."""
    arrays = load_file(path)
    sharpness = float(arrays.pop("sharpness")[0])
    return Head(**arrays, sharpness=sharpness)


@dataclass(frozen=True)
class Lesson:
    """What a head is taught: stories as bags of sentences, and what is known of both."""

    starts: npt.NDArray[np.int64]
    """Shape (n_stories + 1,): story i holds the sentences from starts[i] to starts[i + 1]."""
    labels: npt.NDArray[np.float32]
    """Shape (n_stories, n_themes)."""
    carried: npt.NDArray[np.float32]
    """Shape (n_sentences, n_themes): the themes each sentence is known to carry."""
    known: npt.NDArray[np.float32]
    """Shape (n_sentences,): 1 where that is known, else 0."""

    @classmethod
    def of(cls, stories: Sequence[Story], labels: LabelArray, names: Sequence[str]) -> Lesson:
        """From stories and their labels, shape (n_stories, n_themes)."""
        starts = np.cumsum([0, *(len(story.sentences) for story in stories)])
        carried = np.zeros((starts[-1], len(names)), dtype=np.float32)
        known = np.zeros(starts[-1], dtype=np.float32)
        for place, (story, row) in enumerate(zip(stories, labels, strict=True)):
            found = sentence_labels(story, row, names)
            if found is not None:
                span = slice(starts[place], starts[place + 1])
                carried[span], known[span] = found, 1.0
        return cls(starts, labels.astype(np.float32), carried, known)

    def rows(self, stories: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(the sentences of these stories, the place in `stories` each belongs to)."""
        spans = [np.arange(self.starts[i], self.starts[i + 1]) for i in stories]
        return np.concatenate(spans), np.repeat(np.arange(len(stories)), [len(s) for s in spans])


def positive_weight(share: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How much more a positive weighs than a negative: the root of their ratio, at most 30."""
    return np.clip(np.sqrt((1 - share) / np.maximum(share, 1e-6)), 1.0, 30.0).astype(np.float32)


class Teacher:
    """The loss: what articles and sentences should score, against what they do."""

    def __init__(self, lesson: Lesson, evidence_weight: float) -> None:
        import torch

        self.lesson = lesson
        self.evidence_weight = evidence_weight if lesson.known.any() else 0.0
        seen = lesson.known[:, None]
        share = (lesson.carried * seen).sum(axis=0) / max(1.0, float(seen.sum()))
        self.sentence_share = share
        self.article_weight = torch.from_numpy(positive_weight(lesson.labels.mean(axis=0)))
        self.sentence_weight = torch.from_numpy(positive_weight(share))

    def loss(
        self,
        scores: torch.Tensor,
        rows: npt.NDArray[np.int64],
        owners: npt.NDArray[np.int64],
        stories: Sequence[int],
        log_sharpness: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss, article scores): binary cross-entropy of articles and of known sentences.

        `scores` are those of the sentences `rows`; article scores have shape (n_stories, n_themes).
        """
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

        lesson, device = self.lesson, scores.device
        pooled = smooth_maximum(
            scores, torch.from_numpy(owners).to(device), len(stories), log_sharpness
        )
        labels = torch.from_numpy(lesson.labels[list(stories)]).to(device)
        total = cross_entropy(pooled, labels, pos_weight=self.article_weight.to(device))
        if self.evidence_weight:
            known = torch.from_numpy(lesson.known[rows])[:, None].to(device)
            apart = cross_entropy(
                scores,
                torch.from_numpy(lesson.carried[rows]).to(device),
                pos_weight=self.sentence_weight.to(device),
                reduction="none",
            )
            each = (apart * known).sum() / (known.sum() * scores.shape[1]).clamp(min=1.0)
            total = total + self.evidence_weight * each
        return total, pooled


def smooth_maximum(
    scores: torch.Tensor, owners: torch.Tensor, count: int, log_sharpness: torch.Tensor
) -> torch.Tensor:
    """Log-sum-exp over each story's sentences, shape (count, n_themes)."""
    import torch

    sharpness = log_sharpness.exp()
    place = owners[:, None].expand_as(scores)
    low = torch.full((count, scores.shape[1]), UNLEARNED, device=scores.device, dtype=scores.dtype)
    top = low.scatter_reduce(0, place, scores.detach(), "amax", include_self=True)
    summed = torch.zeros_like(low).index_add(0, owners, (sharpness * (scores - top[owners])).exp())
    return top + summed.clamp(min=1e-20).log() / sharpness


def make_head(size: int, settings: HeadSettings, share: Scores) -> torch.nn.Sequential:
    """An untrained head whose scores start at the log-odds of each theme among sentences."""
    from torch import from_numpy, nn

    outer = nn.Linear(settings.hidden, len(share))
    odds = np.clip(share, 1e-3, 0.5)
    outer.bias.data.copy_(from_numpy(np.log(odds / (1 - odds)).astype(np.float32)))
    return nn.Sequential(
        nn.Linear(size, settings.hidden),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        outer,
    )


@dataclass(frozen=True)
class TaughtHead:
    """A head in torch, with what its vectors are standardised by and what it is taught with."""

    head: torch.nn.Sequential
    log_sharpness: torch.nn.Parameter
    mean: Vectors
    """Shape (size,), as `scale`."""
    scale: Vectors
    teacher: Teacher


def teach_head(
    vectors: Vectors,
    lesson: Lesson,
    settings: HeadSettings,
    seed: int,
    *,
    epochs: int,
    learning_rate: float,
    batch: int,
    among: Sequence[int] | None = None,
) -> TaughtHead:
    """Train a head on vectors, shape (n_sentences, size), that stay as they are.

    `batch` is the number of stories a step, `among` the stories learned from; None: all.
    """
    import torch

    mean, scale = vectors.mean(axis=0), vectors.std(axis=0) + 1e-6
    inputs = torch.from_numpy((vectors - mean) / scale)
    torch.manual_seed(seed)
    random = np.random.Generator(np.random.SFC64(seed))
    teacher = Teacher(lesson, settings.evidence_weight)
    head = make_head(vectors.shape[1], settings, teacher.sentence_share)
    log_sharpness = torch.nn.Parameter(torch.tensor(np.log(START_SHARPNESS), dtype=torch.float32))
    optimizer = torch.optim.AdamW(
        [
            {"params": head.parameters(), "weight_decay": settings.weight_decay},
            {"params": [log_sharpness], "weight_decay": 0.0},
        ],
        lr=learning_rate,
        fused=True,
    )
    learned = np.arange(len(lesson.labels)) if among is None else np.asarray(among)
    steps = -(-len(learned) // batch) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps)
    inner, outer, keep = head[0], head[3], round(256 * (1 - settings.dropout))

    def dropped(hidden: torch.Tensor) -> torch.Tensor:
        # torch takes eight times as long to draw a mask, a third of a step
        drawn = np.frombuffer(random.bytes(hidden.numel()), dtype=np.uint8) < keep
        mask = torch.from_numpy(drawn).view_as(hidden)
        return hidden * mask * (256 / max(1, keep))

    for _ in range(epochs):
        order = learned[torch.randperm(len(learned)).numpy()].tolist()
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            rows, owners = lesson.rows(chosen)
            hidden = dropped(torch.relu(inner(inputs.index_select(0, torch.from_numpy(rows)))))
            loss, _ = teacher.loss(outer(hidden), rows, owners, chosen, log_sharpness)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return TaughtHead(head, log_sharpness, mean, scale, teacher)


def head_arrays(taught: TaughtHead, labels: npt.NDArray[Any]) -> Head:
    """A trained head without torch, the vectors' standardising folded into its first layer.

    A theme that all of the labels, shape (n_stories, n_themes), or none of them have gets a score
    that no sentence moves.
    """
    state = taught.head.state_dict()
    values = {name: value.detach().cpu().numpy().copy() for name, value in state.items()}
    weight = values["0.weight"].T / taught.scale[:, None]
    outer_weight, outer_bias = values["3.weight"].T, values["3.bias"]
    for column in range(labels.shape[1]):
        if labels[:, column].min() == labels[:, column].max():
            outer_weight[:, column] = 0.0
            outer_bias[column] = -UNLEARNED if labels[:, column].max() else UNLEARNED
    return Head(
        weight.astype(np.float32),
        (values["0.bias"] - taught.mean @ weight).astype(np.float32),
        outer_weight.astype(np.float32),
        outer_bias.astype(np.float32),
        float(taught.log_sharpness.detach().exp()),
    )


def averaged(heads: Sequence[Head]) -> Head:
    """One head whose sentence scores are the mean of several heads'.

    A theme that some of them have not learned is left to the others.
    """
    learned = np.array([head.outer.any(axis=0) for head in heads])
    share = learned / np.maximum(1, learned.sum(axis=0))
    # where none has learned it, all say the same
    share[:, ~learned.any(axis=0)] = 1 / len(heads)
    outer = np.concatenate([head.outer * own for head, own in zip(heads, share, strict=True)])
    bias = sum(head.outer_bias * own for head, own in zip(heads, share, strict=True))
    return Head(
        np.concatenate([head.inner for head in heads], axis=1),
        np.concatenate([head.inner_bias for head in heads]),
        outer.astype(np.float32),
        np.asarray(bias, dtype=np.float32),
        float(np.exp(np.mean([np.log(head.sharpness) for head in heads]))),
    )


def fit_encoder(
    stories: Sequence[Story],
    labels: LabelArray,
    names: Sequence[str],
    config: EncoderConfig,
    seed: int,
) -> EncoderTagger:
    """Learn a head from stories and their labels, shape (n_stories, n_themes).

    Raises:
        UsageError: an encoder that cannot be had.
    """
    from themewire.pretrained import stored_encoder

    encoder = stored_encoder(config.frozen())
    vectors = encoder.encode([s.text for story in stories for s in story.sentences])
    lesson = Lesson.of(stories, labels, names)
    taught = teach_head(vectors, lesson, config, seed, epochs=config.epochs,
                        learning_rate=config.learning_rate, batch=config.batch)  # fmt: skip
    return EncoderTagger(encoder, head_arrays(taught, labels))
