"""`encode` of sentence-transformers with its defaults, and a logistic head: seconds for some sentences.

FOLDER SENTENCES OUT: the encoder's folder, a JSON list of strings, and where the seconds go. Opening
the model is not counted.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

folder, sentences, out = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
model = SentenceTransformer(folder, device="cpu")
warm = model.encode(sentences[:64])
labels = np.random.default_rng(20).random((len(warm), 4)) < 0.5
head = OneVsRestClassifier(LogisticRegression()).fit(warm, labels)
start = time.perf_counter()
head.predict_proba(model.encode(sentences))
out.write_text(json.dumps({"seconds": time.perf_counter() - start}))
