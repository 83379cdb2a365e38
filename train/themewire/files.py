"""Files that get their name only once they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from themewire.errors import OutsideError, UsageError


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, renamed to it once all went well."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        # a place that cannot be written to is the user's to change, a full disk is not
        wrong_place = isinstance(
            error,
            FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError,
        )
        kind = UsageError if wrong_place else OutsideError
        raise kind(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink()
