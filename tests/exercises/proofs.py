"""Tell each known mistake from everything similar, on the inputs that a check asks about.

``python -m tests.exercises.proofs`` prints what a law cannot tell apart: a check gives no such name, because it stands in
``lora_np/exercises/data/diagnosis.toml``.
"""

import re
import tomllib
import warnings
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import numpy as np

from lora_np.exercises import Puzzle, lessons, puzzles, solution
from lora_np.exercises.diagnosis import OFTEN, alike, usual
from lora_np.exercises.running import Mistake
from lora_np.exercises.testing import given_by, telling

RULES = tomllib.loads((Path(__file__).parent / "neighbours.toml").read_text(encoding="utf-8"))
ALL = [*(one for lesson in lessons() for one in lesson.exercises), *puzzles()]


def neighbours(one):
    """Change what the student writes of a solution in one place, by each rule of the table."""
    answer, part = one.answer, one.right if isinstance(one, Puzzle) else solution(one.name).code
    found = [
        Mistake(
            "",
            "",
            answer.replace(part, part[: place.start()] + place.expand(new) + part[place.end() :]),
        )
        for rules in RULES.values()
        for old, new in rules.items()
        for place in re.finditer(old, part)
    ]
    # changed, a loop may never end
    return [] if "while" in part else found[:: len(found) // 12 + 1]


def unproved(mistakes, others, answers):
    """List the names for which a law has enough inputs, of which too few differ from a rival.

    ``answers`` has what each mistake gives on every input, by its code. A mistake must differ from
    each other one, and from each of ``others`` that is not the same in other words.
    """
    found = []
    for one in (*mistakes, *others):
        own = answers[one.code]
        if not one.name or sum(a is not None and "value" in a.asked[1] for a in own) < OFTEN:
            continue

        def differences(other, most, own=own):
            several = (
                True for a, b in zip(own, answers[other.code], strict=True) if not alike(a, b)
            )
            return len([*islice(several, most)])

        rivals = [other for other in mistakes if other is not one]
        if not all(differences(other, OFTEN) == OFTEN for other in rivals) or any(
            0 < differences(other, OFTEN) < OFTEN for other in others
        ):
            found.append(one.name)
    return found


def svd_of_finite(M, *settings, svd=np.linalg.svd, **more):
    """Refuse NaN, with which LAPACK may never end."""
    if not np.isfinite(M).all():
        raise np.linalg.LinAlgError("SVD did not converge")
    return svd(M, *settings, **more)


@patch("numpy.linalg.svd", svd_of_finite)
def unproved_by(one, law):
    """List the names that this law of an exercise cannot prove."""
    others = [*usual(one.name), *neighbours(one)]
    inputs = range(len(telling(one, law)))
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        answers = {
            known.code: [given_by(known.code, one, law, i) for i in inputs]
            for known in (*one.mistakes, *others)
        }
    return unproved(one.mistakes, others, answers)


if __name__ == "__main__":
    import json

    for one in ALL:
        for law in one.laws:
            if names := unproved_by(one, law):
                print(
                    f'"{one.name} {law.slug}" = {json.dumps(names, ensure_ascii=False)}', flush=True
                )
