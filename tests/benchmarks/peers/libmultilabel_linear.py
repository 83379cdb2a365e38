"""LibMultiLabel's linear methods on its own TF-IDF; the method is named by PEER_METHOD, the
longest run of words by PEER_NGRAMS."""

import os
import pickle

import numpy as np
from common import run
from libmultilabel import linear

METHODS = {"1vsrest": linear.train_1vsrest, "cost_sensitive": linear.train_cost_sensitive}
state = {}


def data(part, texts, labels):
    return {"data_format": "dataframe", part: {"x": texts, "y": [list(own) for own in labels]}}


def fit(texts, labels, names):
    ngrams = (1, int(os.environ.get("PEER_NGRAMS", "1")))
    preprocessor = linear.Preprocessor(
        include_test_labels=False, tfidf_params={"ngram_range": ngrams}
    )
    found = preprocessor.fit_transform(data("train", texts, labels))
    train = METHODS[os.environ.get("PEER_METHOD", "1vsrest")]
    model = train(found["train"]["y"], found["train"]["x"], "-s 1 -q")
    state["model"] = (preprocessor, model)
    classes = np.array(preprocessor.label_mapping)

    def tag(held):
        part = preprocessor.transform(data("test", held, [[] for _ in held]))
        values = np.asarray(linear.predict_values(model, part["test"]["x"]))
        return [classes[row > 0].tolist() for row in values]

    return tag


run(fit, lambda: len(pickle.dumps(state["model"])))  # measured, never loaded
