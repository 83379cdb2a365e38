"""Tag one story with a saved SetFit model and print it: MODEL STORY."""

import sys
from pathlib import Path

from setfit import SetFitModel

model = SetFitModel.from_pretrained(sys.argv[1], device="cpu")
print(model.predict_proba([Path(sys.argv[2]).read_text(encoding="utf-8")]))
