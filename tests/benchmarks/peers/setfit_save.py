"""A SetFit model as its `save_pretrained` leaves it: ENCODER OUT."""

import sys

from setfit import SetFitModel

encoder, out = sys.argv[1:]
model = SetFitModel.from_pretrained(encoder, multi_target_strategy="one-vs-rest", device="cpu")
texts = ["Frigates were sold.", "The fleets drill.", "A base was leased.", "Cadets were taught."]
model.fit(texts * 4, [[int(i == j) for j in range(4)] for i in range(4)] * 4, num_epochs=1)
model.save_pretrained(out)
