"""Kappa at 135 million parameters."""

from __future__ import annotations

import numpy as np

from claims import batched, longer
from claims.longer import Text
from claims.protocol import Claim
from claims.redrawn import FOLDER, Book, Sweep
from claims.rules import Part, Rule

SEEDS = range(4)
SECONDS = 90  # of a core for each run
NAMES = {"one": "LoRA, r = 8", "sixteen": "LoRA, r = 8, kappa x 16"}


def measure(lab):
    """From what `claims.longer` has recorded: the model is not part of the package, and nothing is
    trained here.
    """
    book, logs = Book(FOLDER / "smollm2.0.jsonl"), {}
    for key, name in NAMES.items():
        sweep = Sweep(book, name, Text(()), *longer.METHODS["smollm2"][name], 1, longer.LOOK)
        swapped = zip(batched.HALVES, batched.HALVES[::-1], strict=True)
        places = {half: sweep.best(half, SEEDS) for half in batched.HALVES}
        logs[key] = np.mean([sweep.logs(places[a], b, SEEDS) for a, b in swapped], axis=0)
        lab.seconds += 0 if lab.quick else SECONDS * sweep.lines()
    return {"gain": np.exp(logs["one"] - logs["sixteen"])}


CLAIM = Claim(
    title="A kappa 16 times as large, alpha 512 instead of 32 at rank 8, is better at 135 million parameters too.",
    paper="Hu et al., arXiv 2106.09685, section 4.1; the study of kappa on digits found it best",
    finding="PENDING",
    topic="scale",
    refuted_by="A loss that is less than one per cent lower, each at its own best learning rate.",
    setup="SmolLM2-135M-Instruct, weights of four bits read as float32, learns The Devil's Dictionary: 60 steps of 128 tokens",
    varied="alpha and the learning rate",
    setting="LoRA on all linear layers. Four seeds draw split, start and order; two of them try three rates or more, a factor of 2 apart, all run at the best. One piece of the text chooses the rate, another counts, and the other way round.",
    figures={"gain": "test loss at alpha 32 over test loss at alpha 512, rank 8, SmolLM2-135M, each at its own best learning rate"},
    measure=measure,
    ratios=("gain",),
    rule=Rule((Part("gain", above=1, worth=1.01),)),
    limits="One model, one text, 60 steps; four seeds, of which two choose the rate. A quick run reads what is recorded, since the model is not part of the package.",
    advice="Do not carry the best alpha of a small network over to a large one; measure it again.",
)  # fmt: skip
