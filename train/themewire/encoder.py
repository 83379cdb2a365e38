"""Sentences to vectors: an exported encoder run by ONNX Runtime, in training and in prediction alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from themewire.text import encodable
from themewire.threads import cores, in_threads

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Vectors = npt.NDArray[np.float32]

GRAPH = "encoder.onnx"
TOKENS = "tokenizer.json"
SETTINGS = "encoder.json"
TOKENS_A_BATCH = 1024
"""Tokens a core reads at once, padding included: enough to keep it busy, little enough for its cache."""


SMALLEST_BATCH = 128
"""Tokens from which a batch is worth a core of its own."""


class Encoder(Protocol):
    """Whatever turns sentences into vectors and can be put into a bundle."""

    def encode(self, sentences: Sequence[str]) -> Vectors:
        """One vector a sentence, shape (n_sentences, size)."""

    def token_ids(self, sentences: Sequence[str]) -> list[list[int]]:
        """The numbers of each sentence's tokens, no special ones among them."""

    def save(self, folder: Path) -> None:
        """Write the encoder's files into an existing folder."""


def bare_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that neither cuts nor pads; many come with both switched on."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def token_windows(
    tokenizer: Tokenizer, sentences: Sequence[str], size: int
) -> list[list[list[int]]]:
    """The tokens of each sentence in windows of at most `size`, special tokens around each window.

    A sentence that fits has one window; of a longer one nothing is cut off.
    """
    around = tokenizer.encode("a")
    inner = [place for place, special in enumerate(around.special_tokens_mask) if not special]
    first, last = around.ids[: inner[0]], around.ids[inner[-1] + 1 :]
    room = size - len(first) - len(last)
    return [
        [[*first, *ids[start : start + room], *last] for start in range(0, max(1, len(ids)), room)]
        for ids in token_ids(tokenizer, sentences)
    ]


def token_ids(tokenizer: Tokenizer, sentences: Sequence[str]) -> list[list[int]]:
    """The numbers of each sentence's tokens, no special ones among them."""
    found = tokenizer.encode_batch_fast(
        [encodable(sentence) for sentence in sentences], add_special_tokens=False
    )
    return [encoding.ids for encoding in found]


def by_length(lengths: Sequence[int], tokens: int = TOKENS_A_BATCH) -> Iterator[list[int]]:
    """Places in batches of like length, longest first, each at most `tokens` with its padding."""
    order = np.argsort(-np.asarray(lengths), kind="stable").tolist()
    start = 0
    while start < len(order):
        size = max(1, tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def padded(windows: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Token numbers and mask, both of shape (n_windows, longest); 0 and masked beyond a window's end."""
    ids = np.zeros((len(windows), max(map(len, windows))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, window in enumerate(windows):
        ids[row, : len(window)] = window
        mask[row, : len(window)] = 1
    return ids, mask


@dataclass(frozen=True)
class OnnxEncoder:
    """An encoder in a folder: its graph, its tokenizer and its settings."""

    folder: Path
    window: int
    """Tokens a window holds, special ones included; longer sentences take several."""
    size: int
    """Length of a vector."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Without truncation and padding."""
        return bare_tokenizer(self.folder / TOKENS)

    @cached_property
    def session(self) -> InferenceSession:
        """ONNX Runtime, one thread a call: `encode` calls it from as many threads as there are cores.

        Cores that read batches of their own need not wait for each other within one.
        """
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(
            self.folder / GRAPH, options, providers=["CPUExecutionProvider"]
        )

    def encode(self, sentences: Sequence[str]) -> Vectors:
        """One vector a sentence, shape (n_sentences, size): the mean over all its tokens."""
        found = token_windows(self.tokenizer, sentences, self.window)
        windows = [window for own in found for window in own]
        owners = np.repeat(np.arange(len(found)), [len(own) for own in found])
        sums = np.zeros((len(sentences), self.size), dtype=np.float32)
        tokens = np.zeros(len(sentences), dtype=np.float32)
        lengths = np.array([len(window) for window in windows])
        # a few sentences are shared out among the cores too
        share = max(SMALLEST_BATCH, -(-int(lengths.sum()) // cores()))
        batches = list(by_length(lengths.tolist(), min(TOKENS_A_BATCH, share)))
        session = self.session

        def means_of(batch: list[int]) -> Vectors:
            ids, mask = padded([windows[place] for place in batch])
            (means,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
            return np.asarray(means, dtype=np.float32)

        for batch, means in zip(batches, in_threads(means_of, batches), strict=True):
            np.add.at(sums, owners[batch], means * lengths[batch, None])
            np.add.at(tokens, owners[batch], lengths[batch])
        return np.asarray(sums / tokens[:, None], dtype=np.float32)

    def token_ids(self, sentences: Sequence[str]) -> list[list[int]]:
        """The numbers of each sentence's tokens, no special ones among them."""
        return token_ids(self.tokenizer, sentences)

    def save(self, folder: Path) -> None:
        """Copy `encoder.onnx`, `tokenizer.json` and `encoder.json`."""
        for name in (GRAPH, TOKENS, SETTINGS):
            shutil.copyfile(self.folder / name, folder / name)

    @classmethod
    def load(cls, folder: Path) -> OnnxEncoder:
        """The encoder whose files lie in a folder; opened when first used.

        Raises:
            ValueError: settings that are not an encoder's.
        """
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        window, size = settings["window"], settings["size"]
        if not (isinstance(window, int) and isinstance(size, int) and window > 2 and size > 0):
            raise ValueError(f"{SETTINGS}: window {window!r}, size {size!r}: whole numbers wanted")
        return cls(folder, window, size)
