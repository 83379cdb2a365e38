"""fastText, one-vs-all, settings of its tutorial on labels that exclude nothing."""

import os
import re
import tempfile

import fasttext
from common import run

state = {}


def line(text):
    return " ".join(re.findall(r"\w+|[^\w\s]", text.lower()))


def fit(texts, labels, names):
    numbers = {name: str(number) for number, name in enumerate(names)}
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False, encoding="utf-8") as file:
        for text, themes in zip(texts, labels):  # noqa: B905 - both come from the same records
            # it drops lines without a label: a label of their own keeps them
            marks = " ".join(f"__label__{numbers[name]}" for name in themes) or "__label__none"
            file.write(f"{marks} {line(text)}\n")
    model = fasttext.train_supervised(
        file.name, lr=0.5, epoch=25, wordNgrams=2, loss="ova", thread=2, verbose=0, seed=20
    )
    os.unlink(file.name)
    state["model"] = model

    def tag(held):
        found = []
        for text in held:
            marks, _ = model.predict(line(text), k=-1, threshold=0.5)
            given = [mark.removeprefix("__label__") for mark in marks]
            found.append([names[int(mark)] for mark in given if mark != "none"])
        return found

    return tag


def size():
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        state["model"].save_model(file.name)
        return os.path.getsize(file.name)


run(fit, size)
