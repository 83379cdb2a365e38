"""Stand-ins: a tiny corpus made here, a working folder of its own, and one trained bundle."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

from themewire.config import Config, make_config

ROOT = Path(__file__).parents[1]
NAMES = ("sale", "drill")
CARRIERS = {
    "sale": ("The rifles were sold to the northern neighbour", "A cargo of rifles was sold abroad"),
    "drill": ("Both navies began a drill off the coast", "The drill of the two fleets starts soon"),
}
FILLERS = ("Rain fell on the capital", "The minister spoke about bread", "Farmers met the mayor",
           "Schools open in autumn", "A bridge was painted green", "The orchestra played twice")  # fmt: skip


def tiny_records(number: int, seed: int, prefix: str = "s") -> list[dict[str, Any]]:
    """Records of stories with two plain themes, none of them a near-duplicate of another."""
    rng = random.Random(seed)  # noqa: S311
    records = []
    for i in range(number):
        themes = [name for name in NAMES if rng.random() < 0.4]
        evidence = {name: [f"{rng.choice(CARRIERS[name])} on day {seed}{i}."] for name in themes}
        filler = [f"{line} {rng.randrange(10**6)} times." for line in rng.sample(FILLERS, 3)]
        lines = filler + [line for lines in evidence.values() for line in lines]
        rng.shuffle(lines)
        records.append(
            {"id": f"{prefix}{i}", "title": f"Report number {seed}{i}", "text": " ".join(lines),
             "themes": themes, "evidence": evidence, "published": "2014-08"}
        )  # fmt: skip
    return records


def write_jsonl(path: Path, records: Sequence[Any]) -> Path:
    """Records, or raw lines, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(*args: str, cwd: Path, stdin: str = "", env: dict[str, str] | None = None):
    """themewire in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "themewire", *args], cwd=cwd, input=stdin, text=True,
        capture_output=True, check=False, timeout=120, env=os.environ | (env or {}),
    )  # fmt: skip


CORE_ONLY = (
    "sklearn",
    "torch",
    "transformers",
    "datasets",
    "mlflow",
    "scipy",
    "pandas",
    "matplotlib",
)


def imported_beyond_the_core(bundle: Path, cwd: Path):
    """Which packages of the training stack a fresh process has loaded once it has predicted."""
    code = (
        "import json, sys; from themewire import load;"
        f"load({str(bundle)!r}).predict(['The rifles were sold.']);"
        f"print(json.dumps([name for name in {CORE_ONLY} if name in sys.modules]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    )
    return json.loads(found.stdout)


def tiny_tables() -> dict[str, Any]:
    return {
        "data": {"articles": "articles.jsonl", "test": "test.jsonl"},
        "taxonomy": {"names": list(NAMES)},
        "split": {"folds": 3},
    }


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables made: making them takes seconds, copying does not."""
    folder = tmp_path_factory.mktemp("store")
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """A working folder with a tiny corpus and an empty store, and the process in it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("THEMEWIRE_MODEL", raising=False)
    # what predicting costs moves with the machine's load, and a promotion must not
    monkeypatch.setattr("themewire.promotion.relative_cost", lambda *_: 1.0)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    write_jsonl(tmp_path / "articles.jsonl", tiny_records(60, 1))
    write_jsonl(tmp_path / "test.jsonl", tiny_records(20, 2, "t"))
    return tmp_path


@pytest.fixture
def tiny_config() -> Config:
    return make_config(tiny_tables(), "test")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear bundle, trained on the tiny corpus without MLflow."""
    from themewire.articles import Article
    from themewire.bundle import HeldOut, save_bundle
    from themewire.config import LinearConfig, make_config
    from themewire.decisions import learn_decision
    from themewire.taggers.linear import fit_linear
    from themewire.text import stories

    config = make_config(tiny_tables(), "test")
    taxonomy = config.load_taxonomy()
    batch = stories([Article.model_validate(record) for record in tiny_records(60, 1)])
    labels = taxonomy.label_array([story.article.themes for story in batch])
    tagger = fit_linear(batch, labels, taxonomy.names, LinearConfig(), config.split.seed)
    scores = tagger.scan(batch).scores
    decision = learn_decision(scores, labels, taxonomy.names, config.decision, config.review)
    held_out = HeldOut.of(batch, scores, labels)
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    save_bundle(folder, tagger=tagger, decision=decision, taxonomy=taxonomy, config=config,
                card="# tiny\n", held_out=held_out)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained BERT of two small layers, with a tokenizer that cuts and pads until told not to."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    texts = [record["text"] for record in tiny_records(60, 1)]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep")},
    )  # fmt: skip
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=256,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder
