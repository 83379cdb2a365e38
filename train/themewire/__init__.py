"""themewire: tags news stories by theme and shows the sentence that earned each tag."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from themewire.predict import Predictor

__version__ = "0.1.0"

__all__ = ["__version__", "load"]


def load(model: str) -> Predictor:
    """A model, ready to tag: a bundle's folder, `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/ID/model`.

    Raises:
        themewire.errors.UsageError: no model there, or one that is not what its manifest says.
    """
    from themewire.predict import load_predictor

    return load_predictor(model)
