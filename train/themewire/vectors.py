"""The vector store: no sentence is encoded twice by the same encoder."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from themewire.encoder import OnnxEncoder, Vectors
from themewire.progress import track
from themewire.text import encodable

SIZE_LIMIT = 4 * 2**30
"""Bytes of vectors kept for one encoder; beyond that the ones unused for longest go."""
CHUNK = 4096
"""Sentences encoded before their vectors are stored: what a killed training loses at most."""
FRESH = 3600.0
"""Seconds for which a vector's last use need not be written down again."""
WAIT = 120.0
"""Seconds one training waits for another that is writing."""


def sentence_key(sentence: str) -> bytes:
    """What a sentence's vector is found by."""
    return hashlib.sha256(encodable(sentence).encode()).digest()[:16]


class VectorStore:
    """Vectors of one encoder in a SQLite file, found by the digest of their sentence.

    SQLite's write-ahead log lets several trainings read and write it at the same time.
    """

    def __init__(self, path: Path, size: int, limit: int = SIZE_LIMIT) -> None:
        self.path = path
        self.size = size
        self.rows_limit = max(1, limit // (4 * size))
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._open()) as base, base:
            base.execute("PRAGMA journal_mode=WAL")
            base.execute(
                "CREATE TABLE IF NOT EXISTS vectors"
                " (key BLOB PRIMARY KEY, vector BLOB NOT NULL, used REAL NOT NULL) WITHOUT ROWID"
            )

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=WAIT)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float32]]:
        """The vectors that are there."""
        now = time.time()
        found = {}
        with closing(self._open()) as base, base:
            base.execute("CREATE TEMP TABLE asked (key BLOB PRIMARY KEY) WITHOUT ROWID")
            base.executemany("INSERT OR IGNORE INTO asked VALUES (?)", [(key,) for key in keys])
            # CROSS JOIN keeps the order: through what is asked for, not through the whole store
            for key, vector in base.execute(
                "SELECT key, vector FROM asked CROSS JOIN vectors USING (key)"
            ):
                if len(vector) == 4 * self.size:
                    found[key] = np.frombuffer(vector, dtype="<f4")
            # the whole row is written anew
            base.execute(
                "UPDATE vectors SET used = ? WHERE used < ? AND key IN (SELECT key FROM asked)",
                (now, now - FRESH),
            )
        return found

    def put(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Keep vectors, shape (n_keys, size); the ones unused for longest make room."""
        now = time.time()
        rows = [
            (key, vector.astype("<f4").tobytes(), now)
            for key, vector in zip(keys, vectors, strict=True)
        ]
        with closing(self._open()) as base, base:
            base.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
            (count,) = base.execute("SELECT COUNT(*) FROM vectors").fetchone()
            if count > self.rows_limit:
                base.execute(
                    "DELETE FROM vectors WHERE key IN (SELECT key FROM vectors ORDER BY used LIMIT ?)",
                    (count - self.rows_limit,),
                )


def _missing(
    keys: Sequence[bytes], sentences: Sequence[str], known: Mapping[bytes, object]
) -> dict[bytes, str]:
    """The sentences whose key is not known yet, each once."""
    return {k: text for k, text in zip(keys, sentences, strict=True) if k not in known}


class StoredEncoder:
    """An encoder that looks into its store first, and remembers what this training has used."""

    def __init__(self, encoder: OnnxEncoder, store: VectorStore) -> None:
        self.encoder = encoder
        self.store = store
        self.places: dict[bytes, int] = {}
        """The row of `known` that each sentence's vector has."""
        self.known = np.empty((0, encoder.size), dtype=np.float32)
        self.tokens: dict[bytes, list[int]] = {}

    def encode(self, sentences: Sequence[str]) -> Vectors:
        """One vector a sentence, shape (n_sentences, size); only new sentences are encoded."""
        keys = [sentence_key(sentence) for sentence in sentences]
        wanted = _missing(keys, sentences, self.places)
        if wanted:
            stored = self.store.get(list(wanted))
            self._remember(list(stored), [np.stack(list(stored.values()))] if stored else [])
            new = [key for key in wanted if key not in stored]
            # like lengths together, so that a chunk is padded little
            new.sort(key=lambda key: -len(wanted[key]))
            encoded = []
            with track("encoding sentences", len(new)) as advance:
                for start in range(0, len(new), CHUNK):
                    part = new[start : start + CHUNK]
                    vectors = self.encoder.encode([wanted[key] for key in part])
                    self.store.put(part, vectors)
                    encoded.append(vectors)
                    advance(len(part))
            self._remember(new, encoded)
        return self.known[[self.places[key] for key in keys]]

    def _remember(self, keys: Sequence[bytes], vectors: Sequence[Vectors]) -> None:
        self.places.update(
            zip(keys, range(len(self.known), len(self.known) + len(keys)), strict=True)
        )
        self.known = np.concatenate([self.known, *vectors])

    def token_ids(self, sentences: Sequence[str]) -> list[list[int]]:
        """The numbers of each sentence's tokens, no special ones among them."""
        keys = [sentence_key(sentence) for sentence in sentences]
        wanted = _missing(keys, sentences, self.tokens)
        found = self.encoder.token_ids(list(wanted.values()))
        self.tokens.update(zip(wanted, found, strict=True))
        return [self.tokens[key] for key in keys]

    def save(self, folder: Path) -> None:
        """The encoder itself; the store stays."""
        self.encoder.save(folder)
