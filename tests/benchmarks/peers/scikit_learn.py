"""scikit-learn as a newcomer wires it: TF-IDF of words and pairs into one logistic regression a label."""

import pickle

from common import run
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer

state = {}


def fit(texts, labels, names):
    binarizer = MultiLabelBinarizer(classes=names).fit([])
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, stop_words="english"),
        OneVsRestClassifier(LogisticRegression(C=10, class_weight="balanced", max_iter=1000)),
    )
    model.fit(texts, binarizer.transform(labels))
    state["model"] = model
    return lambda held: [list(tags) for tags in binarizer.inverse_transform(model.predict(held))]


run(fit, lambda: len(pickle.dumps(state["model"])))  # measured, never loaded
