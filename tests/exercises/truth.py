"""Judge a name that a check gives a wrong answer, on inputs that the check has never seen."""

from itertools import pairwise

import numpy as np

from lora_np.exercises.diagnosis import alike, usual, written
from lora_np.exercises.inputs import Draw
from lora_np.exercises.running import call, values_alike
from lora_np.exercises.testing import Answer, again, breaks


class Larger(Draw):
    """Sizes go twice as far as a law asks; what is only picked stays."""

    def whole(self, name, low, high, *, effort=None):
        wide = effort is None and 2 <= high - low <= 12
        return super().whole(name, low, high + (high - low) * wide, effort=effort)


def answer_of(one, function):
    return Answer(one, lambda arguments, rules: call(function, arguments))


def larger(one, law, count, seed):
    """Inputs that the law can ask about, as a solution shows: it satisfies the law there."""
    solution = answer_of(one, written(one.answer, one.name))
    rng = np.random.default_rng([seed, len(one.name)])
    for _ in range(count):
        draw, solution.last = Larger(rng), ((), {})
        if breaks(law, draw, solution) is None and solution.last[1]:
            yield draw.drawn, solution.last[0]


def wrong_share(one, law, function, name, count=1_000, seed=53):
    """On which share of the inputs the answer is not what its name says, and of how many."""
    student, inputs = answer_of(one, function), list(larger(one, law, count, seed))
    if name.startswith("without using "):
        places = [
            one.parameters.index(p) for p in name.removeprefix("without using ").split(" and ")
        ]
        kept = []
        for (_, first), (_, second) in pairwise(inputs):
            for i in places:
                mixed = [*first[:i], second[i], *first[i + 1 :]]
                if "value" in call(written(one.answer, one.name), mixed):
                    a, b = call(function, first), call(function, mixed)
                    kept.append("value" in b and values_alike(b["value"], a["value"], 1e-6))
        return 1 - np.mean(kept), len(kept)
    (code,) = (m.code for m in (*one.mistakes, *usual(one.name)) if m.name == name)
    mistake = answer_of(one, written(code, one.name, one.answer))
    kept = [alike(again(law, student, drawn), again(law, mistake, drawn)) for drawn, _ in inputs]
    return 1 - np.mean(kept), len(kept)
