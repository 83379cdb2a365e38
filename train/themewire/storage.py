"""Files where an archive lies: on this machine, or wherever fsspec reaches (s3://, gs://, hdfs://, …)."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from themewire.errors import OutsideError, UsageError, missing_extra
from themewire.files import draft_of

WEB = ("http://", "https://")
"""Fetched as stories, with the limits that go with it; never storage."""


def is_stored(name: str) -> bool:
    """Whether a name is an address of a storage, not a path of this machine and not a web page."""
    return "://" in name and not name.lower().startswith(WEB)


def _system(name: str) -> tuple[Any, str]:
    """The file system that an address belongs to, and the path there.

    Raises:
        UsageError: a scheme that nothing installed here can open.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise missing_extra("formats", error) from error
    try:
        system, path = url_to_fs(name)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{name}: {error}") from error
    return system, str(path)


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """A file's bytes, read as they are needed."""
    if not is_stored(name):
        with Path(name).open("rb") as stream:
            yield stream
        return
    system, path = _system(name)
    with system.open(path, "rb") as stream:
        yield cast(BinaryIO, stream)


def exists(name: str) -> bool:
    """Whether a file is there."""
    if not is_stored(name):
        return Path(name).exists()
    system, path = _system(name)
    return bool(system.exists(path))


def digest(name: str) -> str:
    """The sha256 of a file."""
    with opened(name) as stream:
        return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()


def stored_files(given: str, endings: Sequence[str]) -> list[str]:
    """The files that an address stands for: itself, those under a folder, or those of a pattern.

    Under a folder only names with one of the `endings` count.
    """
    system, path = _system(given)
    if system.isdir(path):
        found = [name for name in system.find(path) if name.lower().endswith(tuple(endings))]
    else:
        found = system.glob(path) if any(sign in path for sign in "*?[") else [path]
    return [str(system.unstrip_protocol(name)) for name in sorted(found)] or [given]


@contextmanager
def result_at(name: str) -> Iterator[Path]:
    """A place on this machine to write to; `name` is there, whole, once all went well."""
    if not is_stored(name):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path) as draft:
            yield draft
        return
    system, path_there = _system(name)
    with tempfile.TemporaryDirectory(prefix="themewire-") as scratch:
        draft = Path(scratch) / "result"
        yield draft
        part = f"{path_there}.part"
        try:
            system.makedirs(path_there.rpartition("/")[0], exist_ok=True)
            system.put_file(str(draft), part)
            system.mv(part, path_there)
        except Exception as error:  # drivers have errors of their own
            raise OutsideError(f"{name}: cannot be written: {error}") from error
