"""`finetune`: the head of `encoder`, with the encoder's upper layers trained as well.

The head is first taught on frozen vectors, so that the encoder is not pulled about by a head that
knows nothing; then both learn together on transformers' Trainer. What comes out is exported, and
predicts exactly as `encoder` does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from filelock import FileLock
from torch import nn

from themewire.config import FinetuneConfig
from themewire.encoder import OnnxEncoder, by_length, padded, token_windows
from themewire.metrics import average_precisions
from themewire.pretrained import (
    WORKSHOP,
    LayerMeans,
    export_encoder,
    find_source,
    load_pretrained,
    stored_encoder,
)
from themewire.taggers.base import Listener
from themewire.taggers.encoder import (
    HEAD,
    EncoderTagger,
    Lesson,
    Teacher,
    head_arrays,
    load_head,
    save_head,
    teach_head,
)
from themewire.taggers.launch import launch, processes, world_size
from themewire.text import Story
from themewire.themes import LabelArray

logger = logging.getLogger(__name__)

MARK = "complete.json"
"""Written last into a checkpoint: the size of each of its files."""
VERSION = 2
"""Goes into what a fine-tune is found by; raise it when the same settings teach something else."""
KEPT = 4
"""Finished fine-tunes that stay in the workshop; older ones go."""


class StoryModel(nn.Module):
    """Encoder and head, from tokens to the loss of whole stories."""

    def __init__(
        self, means: LayerMeans, head: nn.Sequential, log_sharpness: nn.Parameter,
        mean: torch.Tensor, scale: torch.Tensor, teacher: Teacher,
    ) -> None:  # fmt: skip
        super().__init__()
        self.means, self.head, self.log_sharpness = means, head, log_sharpness
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.teacher = teacher

    def forward(
        self,
        groups: list[dict[str, torch.Tensor]],
        rows: torch.Tensor,
        owners: torch.Tensor,
        chosen: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """The loss of the `chosen` stories, and their article scores, shape (n_chosen, n_themes).

        Each group holds windows of like length, with the place of the sentence they belong to;
        `rows` are the sentences' numbers in the lesson, `owners` the place of each one's story.
        """
        device = self.log_sharpness.device
        size = len(self.mean)
        sums = torch.zeros((len(rows), size), device=device)
        tokens = torch.zeros((len(rows), 1), device=device)
        for group in groups:
            found = self.means(group["ids"], group["mask"]).float()
            length = group["mask"].sum(dim=1, keepdim=True).float()
            sums = sums.index_add(0, group["place"], found * length)
            tokens = tokens.index_add(0, group["place"], length)
        scores = self.head((sums / tokens - self.mean) / self.scale)
        loss, pooled = self.teacher.loss(
            scores, rows.cpu().numpy(), owners.cpu().numpy(), chosen.tolist(), self.log_sharpness
        )
        return {"loss": loss, "logits": pooled}


class StoryReader:
    """Makes batches: the sentences of some stories, in groups of windows of like length."""

    def __init__(
        self, windows: Sequence[list[list[int]]], lesson: Lesson, kept: Sequence[Any]
    ) -> None:
        self.windows, self.lesson, self.kept = windows, lesson, kept

    def __call__(self, chosen: Sequence[int]) -> dict[str, Any]:
        """A batch for `StoryModel.forward`, labels added for the Trainer."""
        rows = np.concatenate([self.kept[i] for i in chosen])
        owners = np.repeat(np.arange(len(chosen)), [len(self.kept[i]) for i in chosen])
        flat = [(place, window) for place, row in enumerate(rows) for window in self.windows[row]]
        groups = []
        for batch in by_length([len(window) for _, window in flat]):
            ids, mask = padded([flat[i][1] for i in batch])
            place = torch.tensor([flat[i][0] for i in batch])
            groups.append(
                {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask), "place": place}
            )
        return {
            "groups": groups,
            "rows": torch.from_numpy(rows),
            "owners": torch.from_numpy(owners),
            "chosen": torch.tensor(list(chosen)),
            "labels": torch.from_numpy(self.lesson.labels[list(chosen)]),
        }


def hardest(scores: np.ndarray[Any, Any], lesson: Lesson, limit: int) -> list[np.ndarray[Any, Any]]:
    """The sentences each story is taught by: its evidence, and those that score highest, `limit` in all.

    Most sentences of a story carry nothing and are easily told; reading them again and again costs
    time and teaches little. All sentences are read when predicting.
    """
    rank = scores.max(axis=1) + 1e6 * lesson.carried.max(axis=1)
    kept = []
    for start, end in zip(lesson.starts[:-1], lesson.starts[1:], strict=True):
        order = np.argsort(-rank[start:end], kind="stable")[:limit]
        kept.append(np.sort(order) + start)
    return kept


def complete_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end; half-written ones are taken away."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    best = None
    for path in found:
        try:
            sizes = json.loads((path / MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            sizes = None
        if sizes and all(
            (path / name).is_file() and (path / name).stat().st_size == size
            for name, size in sizes.items()
        ):
            best = path
        else:
            logger.warning("%s was not written to its end: passed over", path)
            shutil.rmtree(path, ignore_errors=True)
    return best


class _Marks(transformers.TrainerCallback):  # type: ignore[misc]
    """Marks each checkpoint as complete, once it is; passes figures on."""

    def __init__(self, listener: Listener | None) -> None:
        self.listener = listener

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if not state.is_world_process_zero or not folder.is_dir():
            return
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        draft = folder / f".{MARK}"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(sizes, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(folder / MARK)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        known = {"loss": "train_loss", "eval_loss": "loss", "eval_mean_ap": "mean_ap",
                 "learning_rate": "learning_rate"}  # fmt: skip
        figures = {
            known[name]: float(value) for name, value in (logs or {}).items() if name in known
        }
        if figures and state.is_world_process_zero:
            shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
            logger.info("step %d of %d: %s", state.global_step, state.max_steps, shown)
            if self.listener is not None:
                self.listener(figures, state.global_step)


def mean_ap(prediction: Any) -> dict[str, float]:
    """Mean average precision over the themes that some story of the validation part carries."""
    found = average_precisions(prediction.label_ids, prediction.predictions)
    values = [value for value in found if value is not None]
    return {"mean_ap": float(np.mean(values)) if values else 0.0}


def fit_finetune(
    stories: Sequence[Story],
    labels: LabelArray,
    names: Sequence[str],
    config: FinetuneConfig,
    seed: int,
    listener: Listener | None = None,
) -> EncoderTagger:
    """Learn encoder and head from stories and their labels, shape (n_stories, n_themes).

    Killed and called again with the same stories and settings, it goes on from its last complete
    checkpoint; what was finished already is taken as it is.

    Raises:
        UsageError: an encoder that cannot be had, or that has fewer layers than asked for.
    """
    folder = WORKSHOP / "finetune" / _key(stories, labels, names, config, seed)
    folder.mkdir(parents=True, exist_ok=True)
    # the same fine-tune started twice at once: the second waits, and takes what the first made
    with FileLock(folder / "lock"):
        if not (folder / "done").is_dir():
            job = folder, stories, labels, names, config, seed
            count = processes()
            if count == 1:
                _learn(*job, listener)
            else:
                # each process will find the vectors stored
                stored_encoder(config.frozen()).encode(
                    [s.text for story in stories for s in story.sentences]
                )
                launch(count, _learn, job, folder / "notes.jsonl", listener)
        else:
            logger.info("this fine-tune was finished before: taken from %s", folder)
    done = (folder / "done").resolve()
    return EncoderTagger(OnnxEncoder.load(done), load_head(done / HEAD), "finetune")


def _learn(
    folder: Path,
    stories: Sequence[Story],
    labels: LabelArray,
    names: Sequence[str],
    config: FinetuneConfig,
    seed: int,
    listener: Listener | None,
) -> None:
    """Train, from the last complete checkpoint if there is one, and leave `done` in the folder."""
    lesson = Lesson.of(stories, labels, names)
    sentences = [s.text for story in stories for s in story.sentences]
    vectors = stored_encoder(config.frozen()).encode(sentences)
    learn, validate = _validation(lesson, config.validation, seed)
    taught = teach_head(vectors, lesson, config, seed, epochs=config.head_epochs,
                        learning_rate=config.frozen_learning_rate, batch=64, among=learn)  # fmt: skip
    model, tokenizer = load_pretrained(find_source(config))
    _freeze(model, config.frozen_layers)
    means = LayerMeans(model, config.layers)
    story_model = StoryModel(
        means, taught.head, taught.log_sharpness,
        torch.from_numpy(taught.mean), torch.from_numpy(taught.scale), taught.teacher,
    )  # fmt: skip
    frozen_head = head_arrays(taught, labels)
    kept = hardest(frozen_head.sentence_scores(vectors), lesson, config.sentences)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    reader = StoryReader(token_windows(backend, sentences, config.window), lesson, kept)
    trainer = _make_trainer(story_model, reader, learn, validate, config, seed, folder, listener)
    checkpoint = complete_checkpoint(folder)
    if checkpoint is not None:
        logger.info("going on from %s", checkpoint)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if not trainer.is_world_process_zero():
        return
    story_model.cpu().eval()
    head = head_arrays(taught, labels)
    draft = Path(tempfile.mkdtemp(prefix=".done-", dir=folder))
    export_encoder(means, tokenizer, config.window, draft)
    save_head(head, draft / HEAD)
    draft.chmod(0o755)
    draft.rename(folder / "done")
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)
    _forget(folder.parent)


def _key(
    stories: Sequence[Story],
    labels: LabelArray,
    names: Sequence[str],
    config: FinetuneConfig,
    seed: int,
) -> str:
    """What the same fine-tune is found by when it is started again."""
    digest = hashlib.sha256(
        json.dumps(
            [VERSION, config.model_dump(mode="json", exclude={"refit"}), seed, list(names)]
        ).encode()
    )
    digest.update(np.ascontiguousarray(labels).tobytes())
    for story in stories:
        content = (story.article.title, story.article.text, sorted(story.article.evidence.items()))
        digest.update(repr(content).encode())
    return digest.hexdigest()[:16]


def _freeze(model: Any, layers: int) -> None:
    """Leave the embeddings and the lowest layers as they are: they matter least and cost as much."""
    for parameter in model.get_input_embeddings().parameters():
        parameter.requires_grad = False
    if hasattr(model, "embeddings"):
        for parameter in model.embeddings.parameters():
            parameter.requires_grad = False
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    for layer in stacks[0][:layers] if stacks else ():
        for parameter in layer.parameters():
            parameter.requires_grad = False


def _validation(lesson: Lesson, share: float, seed: int) -> tuple[list[int], list[int]]:
    """(stories to learn from, stories to stop by): a random part, no story without a sentence."""
    usable = np.flatnonzero(np.diff(lesson.starts))
    order = np.random.default_rng(seed).permutation(usable)
    count = int(len(order) * share)
    return order[count:].tolist(), order[:count].tolist()


def _make_trainer(
    model: StoryModel,
    reader: StoryReader,
    learn: list[int],
    validate: list[int],
    config: FinetuneConfig,
    seed: int,
    folder: Path,
    listener: Listener | None,
) -> transformers.Trainer:
    # the processes share a batch
    batch = max(1, config.batch // world_size())
    steps = max(1, -(-len(learn) // (batch * world_size())) // 2)
    cuda = torch.cuda.is_available()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=batch,
        num_train_epochs=config.epochs,
        warmup_steps=config.warmup,
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        eval_strategy="steps" if validate else "no",
        eval_steps=steps,
        save_strategy="steps",
        save_steps=steps,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=steps,
        load_best_model_at_end=bool(validate),
        metric_for_best_model="mean_ap" if validate else None,
        greater_is_better=True if validate else None,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        # without a GPU the Trainer takes processes for strangers unless it is told
        use_cpu=not cuda and world_size() > 1,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
        seed=seed,
        data_seed=seed,
    )
    callbacks: list[transformers.TrainerCallback] = [_Marks(listener)]
    if validate:
        callbacks.append(transformers.EarlyStoppingCallback(config.patience))
    trained = [p for p in model.means.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": trained, "lr": config.learning_rate, "weight_decay": config.weight_decay},
            {"params": model.head.parameters(), "lr": config.head_learning_rate,
             "weight_decay": config.weight_decay},
            {"params": [model.log_sharpness], "lr": config.head_learning_rate, "weight_decay": 0.0},
        ]
    )  # fmt: skip
    trainer = _StoryTrainer(
        model=model,
        args=arguments,
        train_dataset=learn,
        eval_dataset=validate or None,
        data_collator=reader,
        compute_metrics=mean_ap,
        callbacks=callbacks,
        optimizers=(optimizer, None),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


class _StoryTrainer(transformers.Trainer):  # type: ignore[misc]
    """The Trainer, for batches whose labels the model has in its lesson already."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        found = model(**{key: value for key, value in inputs.items() if key != "labels"})
        return (found["loss"], found) if return_outputs else found["loss"]


def _forget(folder: Path) -> None:
    """Remove the oldest finished fine-tunes; unfinished ones stay, to be gone on with."""
    done = sorted(folder.glob("*/done"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in done[KEPT:]:
        shutil.rmtree(path.parent, ignore_errors=True)
