"""Tag one story with a transformers pipeline and print it: ENCODER STORY.

The head is untrained, which costs a start what a trained one would.
"""

import sys
from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=4)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
tag = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
print(tag(Path(sys.argv[2]).read_text(encoding="utf-8"), truncation=True))
