"""Save and load a trained tagger as one folder that is checked before anything in it is opened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from themewire.config import Config, config_from_json
from themewire.decisions import Decision
from themewire.errors import UsageError
from themewire.taggers import load_tagger
from themewire.taggers.base import Scores, Tagger
from themewire.text import Story, word_checksums
from themewire.themes import LabelArray, Taxonomy

MANIFEST = "manifest.json"
DECISION = "decision.json"
HELD_OUT = "held_out.safetensors"
FORMAT_VERSION: Literal[1] = 1
SIZE_LIMIT = 8 * 2**30
"""Bytes a file of a bundle may have; a manifest that claims more is refused."""
MANIFEST_LIMIT = 2**20
SUFFIXES = frozenset({".json", ".md", ".safetensors", ".onnx"})
"""The only kinds of file a bundle may hold; none of them can carry code that runs."""


class FileEntry(BaseModel):
    """One file of the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=SIZE_LIMIT)]


class Manifest(BaseModel):
    """What the folder must hold, to the byte."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format_version: Literal[1]
    tagger: str
    created_by: str
    files: Annotated[tuple[FileEntry, ...], Field(strict=False)]


@dataclass(frozen=True)
class HeldOut:
    """What the decision was learned on: kept, so that it can be taken anew without a training.

    It is also what incoming stories are held against, to see whether they have drifted away.
    """

    scores: Scores
    """Out-of-fold scores, shape (n_articles, n_themes)."""
    labels: LabelArray
    """Of the same articles."""
    words: npt.NDArray[np.int32]
    """Their numbers of words, shape (n_articles,)."""
    unseen: npt.NDArray[np.float32]
    """The share of an article's words that no other article has, shape (n_articles,)."""
    vocabulary: npt.NDArray[np.uint32]
    """Checksums of all the articles' words, rising."""

    @classmethod
    def of(cls, batch: Sequence[Story], scores: Scores, labels: LabelArray) -> HeldOut:
        """Of articles, their out-of-fold scores and labels, both of shape (n_articles, n_themes)."""
        found = [word_checksums(story.article.whole) for story in batch]
        vocabulary, articles = np.unique(
            np.concatenate([np.unique(words) for words in found]), return_counts=True
        )
        lengths = np.array([len(words) for words in found], dtype=np.int32)
        owners = np.repeat(np.arange(len(batch)), lengths)
        own = np.isin(np.concatenate(found), vocabulary[articles == 1])
        unseen = np.bincount(owners, own, minlength=len(batch)) / np.maximum(lengths, 1)
        return cls(scores, labels, lengths, unseen.astype(np.float32), vocabulary)

    def save(self, folder: Path) -> None:
        """Write `held_out.safetensors` into an existing folder."""
        arrays = {
            field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)
        }
        save_file(arrays, folder / HELD_OUT)


@dataclass(frozen=True)
class Bundle:
    """A trained tagger with what is needed to use it."""

    tagger: Tagger
    decision: Decision
    taxonomy: Taxonomy
    config: Config
    folder: Path
    digest: str
    """sha256 of the manifest."""

    def held_out(self) -> HeldOut:
        """What the decision was learned on.

        Raises:
            UsageError: a bundle without it, or whose file does not fit its themes.
        """
        try:
            found = HeldOut(**load_file(self.folder / HELD_OUT))
        except (OSError, TypeError, SafetensorError) as error:
            raise UsageError(f"{self.folder / HELD_OUT}: cannot be read: {error}") from error
        if found.scores.shape != found.labels.shape or found.scores.shape[1] != len(self.taxonomy):
            raise UsageError(f"{self.folder / HELD_OUT}: refused: does not fit the bundle's themes")
        return found


def file_digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unsafe(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or ":" in name
        or name == MANIFEST
    )  # fmt: skip


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest of a bundle and its digest.

    Raises:
        UsageError: no bundle there, or a manifest that is not as it must be.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MANIFEST_LIMIT:
            raise UsageError(f"{path}: larger than {MANIFEST_LIMIT} bytes; this is no bundle")
        raw = path.read_bytes()
        manifest = Manifest.model_validate(json.loads(raw))
    except OSError as error:
        raise UsageError(
            f"{folder}: no bundle there ({MANIFEST}: {error.strerror}); run `make train` to make one"
        ) from error
    except (ValueError, RecursionError) as error:
        reason = (
            "{loc}: {msg}".format(**error.errors()[0])
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise UsageError(f"{path}: refused: {reason}") from error
    return manifest, hashlib.sha256(raw).hexdigest()


def verify(folder: Path) -> tuple[Manifest, str]:
    """Check every file of a bundle against its manifest; nothing else of it is opened before.

    Raises:
        UsageError: a file that is missing, changed, not listed, of a kind no bundle has, or outside.
    """
    manifest, digest = read_manifest(folder)
    listed = set()
    for entry in manifest.files:
        if _unsafe(entry.path):
            raise UsageError(
                f"{folder}: refused: the manifest names {entry.path!r}, outside the folder"
            )
        path = folder / entry.path
        if path.suffix not in SUFFIXES:
            raise UsageError(f"{path}: refused: no bundle holds {path.suffix or 'such'} files")
        if path.is_symlink() or not path.is_file():
            raise UsageError(f"{path}: refused: missing from the bundle; get the bundle anew")
        if path.stat().st_size != entry.size or file_digest(path) != entry.sha256:
            raise UsageError(f"{path}: refused: not what the manifest says; get the bundle anew")
        listed.add(path)
    present = {path for path in folder.rglob("*") if not path.is_dir()} - {folder / MANIFEST}
    for path in sorted(present - listed):
        raise UsageError(f"{path}: refused: not listed in the manifest; take it out")
    return manifest, digest


def save_bundle(
    folder: Path,
    *,
    tagger: Tagger,
    decision: Decision,
    taxonomy: Taxonomy,
    config: Config,
    card: str,
    held_out: HeldOut,
) -> str:
    """Write a bundle to `folder`, which must not exist yet; returns the manifest's digest.

    Written beside it under a temporary name and then renamed, so that a half-written bundle is
    never found under its name.
    """
    with _draft(folder) as draft:
        tagger.save(draft)
        held_out.save(draft)
        (draft / "taxonomy.json").write_text(taxonomy.to_json(), encoding="utf-8")
        (draft / DECISION).write_text(decision.model_dump_json(indent=1), encoding="utf-8")
        (draft / "config.json").write_text(config.to_json(), encoding="utf-8")
        (draft / "card.md").write_text(card, encoding="utf-8")
        return _seal(draft, tagger.kind)


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """A folder to write into, which gets the name `folder` once it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield draft
        draft.chmod(0o755)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _seal(draft: Path, kind: str) -> str:
    """Write the manifest of what lies in the folder; returns its digest."""
    from themewire import __version__

    entries = tuple(
        FileEntry(
            path=path.relative_to(draft).as_posix(),
            sha256=file_digest(path),
            size=path.stat().st_size,
        )
        for path in sorted(draft.rglob("*"))
        if path.is_file() and path != draft / MANIFEST
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        tagger=kind,
        created_by=f"themewire {__version__}",
        files=entries,
    )
    raw = manifest.model_dump_json(indent=1).encode()
    (draft / MANIFEST).write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def write_decision(
    bundle: Bundle, decision: Decision, target: Path, config: Config | None = None
) -> str:
    """Put a copy of the bundle with another decision at `target`, and another configuration where given.

    Returns its manifest's digest.
    """
    with tempfile.TemporaryDirectory(prefix="themewire-") as scratch:
        copy = Path(scratch) / "bundle"
        shutil.copytree(bundle.folder, copy)
        (copy / DECISION).write_text(decision.model_dump_json(indent=1), encoding="utf-8")
        (copy / "config.json").write_text((config or bundle.config).to_json(), encoding="utf-8")
        digest = _seal(copy, bundle.tagger.kind)
        install_bundle(copy, target)
    return digest


def install_bundle(source: Path, target: Path) -> None:
    """Put a copy of a bundle in the place of the one at `target`, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        shutil.copytree(source, draft / "new")
        if target.exists():
            target.rename(draft / "old")
        (draft / "new").rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def pack_bundle(folder: Path, target: Path) -> str:
    """Write a bundle as one archive file; returns its manifest's digest.

    The same bundle makes the same archive, to the byte.
    """
    manifest, digest = verify(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (MANIFEST, *(entry.path for entry in manifest.files)):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as out, (folder / name).open("rb") as file:
                shutil.copyfileobj(file, out)
    return digest


def unpack_bundle(archive: Path, folder: Path) -> None:
    """Put the files of an archive into an existing folder; they are not trusted, `verify` looks at them.

    Raises:
        UsageError: no such archive, or one that holds what no bundle does.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > SIZE_LIMIT:
                raise UsageError(f"{archive}: refused: unpacks to more than {SIZE_LIMIT >> 30} GiB")
            for entry in entries:
                name = entry.filename
                outside = _unsafe(name) and name != MANIFEST
                if outside or PurePosixPath(name).suffix not in SUFFIXES:
                    raise UsageError(f"{archive}: refused: holds {name!r}, which no bundle does")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                # zipfile reads no more than the size it claims
                with packed.open(entry) as file, target.open("xb") as out:
                    shutil.copyfileobj(file, out)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise UsageError(f"{archive}: refused: {error}") from error
    except OSError as error:
        raise UsageError(f"{archive}: cannot be unpacked: {error}") from error


def load_bundle(folder: Path | str) -> Bundle:
    """Check a bundle and load it.

    Raises:
        UsageError: no bundle there, or one that is not what its manifest says.
    """
    folder = Path(os.path.normpath(folder))
    manifest, digest = verify(folder)
    try:
        taxonomy = Taxonomy.from_json((folder / "taxonomy.json").read_text(encoding="utf-8"))
        decision = Decision.model_validate_json((folder / DECISION).read_bytes())
        config = config_from_json((folder / "config.json").read_text(encoding="utf-8"))
        tagger = load_tagger(manifest.tagger, folder, config.predict.cascade)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder}: refused: the bundle does not load: {error}") from error
    if tuple(theme.theme for theme in decision.themes) != taxonomy.names:
        raise UsageError(f"{folder}: refused: decision.json and taxonomy.json name other themes")
    return Bundle(tagger, decision, taxonomy, config, folder, digest)
