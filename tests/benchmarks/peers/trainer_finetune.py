"""transformers' Trainer as its documentation wires it: stories cut short, a sigmoid a theme, cut at one half.

PEER_ENCODER names the folder of the pretrained encoder, PEER_TOKENS where stories are cut (256).
"""

import os
import tempfile

import numpy as np
from common import run
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

ENCODER = os.environ["PEER_ENCODER"]
TOKENS = int(os.environ.get("PEER_TOKENS", "256"))
state = {}


def fit(texts, labels, names):
    tokenizer = AutoTokenizer.from_pretrained(ENCODER)
    model = AutoModelForSequenceClassification.from_pretrained(
        ENCODER, num_labels=len(names), problem_type="multi_label_classification"
    )

    def rows(stories, targets=None):
        found = tokenizer(stories, truncation=True, max_length=TOKENS)
        table = [{"input_ids": ids} for ids in found["input_ids"]]
        if targets is not None:
            for row, themes in zip(table, targets, strict=True):
                row["labels"] = [float(name in themes) for name in names]
        return table

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        num_train_epochs=3,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=64,
        learning_rate=1e-4,
        warmup_steps=0.1,
        weight_decay=0.01,
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        report_to=[],
        seed=20,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows(texts, labels),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()
    state["size"] = sum(value.numel() * 4 for value in model.parameters())

    def tag(held):
        scores = trainer.predict(rows(held)).predictions
        return [[names[i] for i in np.flatnonzero(row > 0).tolist()] for row in scores]

    return tag


run(fit, lambda: state["size"])
