"""Name the mistake behind an answer, where enough inputs tell it from everything similar."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice, pairwise

from lora_np.exercises.forbidden import Rules
from lora_np.exercises.inputs import Counterexample
from lora_np.exercises.regions import table
from lora_np.exercises.running import ANYTHING, Mistake, Reply, run_cell, values_alike
from lora_np.exercises.values import Value

Broken = Counterexample | None  # None where the law holds
OFTEN = 5  # inputs needed as proof, and inputs of each region that a law must see


def diagnosis(
    mistakes: Sequence[Mistake],
    others: Sequence[Mistake],
    given: Sequence[Broken],
    tell: Callable[[Mistake, int], Broken],
) -> Mistake | None:
    """Find the mistake that explains an answer, if inputs prove it.

    It gives what the answer gives on every input. On five of them or more the answer breaks the
    law with a value, and each other mistake differs from it on five of them or more.

    Parameters
    ----------
    mistakes : sequence of Mistake
        Those that are known.
    others : sequence of Mistake
        Those that any exercise allows, and changes of the solution, which have no name. One that
        is never different is the mistake that is found, in other words.
    given : sequence of Counterexample or None
        How the answer breaks the law on each input.
    tell : callable
        How a mistake breaks it on the input of this number.
    """
    places = sorted(
        range(len(given)), key=lambda i: given[i] is None
    )  # arguments that differ come first
    telling = sum(one is not None and "value" in one.asked[1] for one in given)

    def same(one: Mistake) -> bool:
        return all(alike(given[i], tell(one, i)) for i in places)

    def apart(one: Mistake) -> bool:
        differences = (i for i in places if not alike(given[i], tell(one, i)))
        return len([*islice(differences, OFTEN)]) == OFTEN

    named = (one for one in (*mistakes, *others) if one.name and same(one))
    found = next(named, None) if telling >= OFTEN else None
    proved = (one is found or apart(one) for one in mistakes)
    spared = (apart(one) or same(one) for one in others)
    return found if found and all(proved) and all(spared) else None


def alike(a: Broken, b: Broken) -> bool:
    """Return whether two answers are the same in what a law compares."""
    if a is None or b is None:
        return a is b
    if a.why.name != b.why.name:
        return False
    if a.why.compared is None:
        return replies_alike(a.asked[1], b.asked[1])
    return values_alike(a.why.compared, b.why.compared)


def replies_alike(a: Reply, b: Reply) -> bool:
    """Return whether two calls returned the same value, or failed in the same way."""
    if "value" in a and "value" in b:
        return values_alike(a["value"], b["value"])
    first, second = (str(reply.get("error", "")).partition(" (line")[0] for reply in (a, b))
    return bool(first) and first == second


def unused(
    parameters: Sequence[str],
    answer: Callable[[Sequence[Value], Rules], Reply],
    solution: Callable[[Sequence[Value], Rules], Reply],
    asked: Sequence[Sequence[Value]],
) -> str:
    """Name the parameters that change what the solution returns, and never what the answer does."""
    names = []
    for i, name in enumerate(parameters):
        changes = 0
        for one, other in pairwise(asked):
            new = [*one[:i], other[i], *one[i + 1 :]]
            right, changed = solution(one, ANYTHING), solution(new, ANYTHING)
            if "value" in changed and not replies_alike(changed, right):
                a, b = answer(one, ANYTHING).get("value"), answer(new, ANYTHING).get("value")
                if a is None or not values_alike(b, a, 1e-9):
                    break
                changes += 1
        else:
            names += [name] * (changes >= OFTEN)
    return f"without using {' and '.join(names)}" * bool(names)


@cache
def usual(answer: str, name: str) -> list[Mistake]:
    """List the mistakes that any exercise allows: each changes what ``answer`` returns."""
    head = f"{answer}\nsolution = {name}\n\ndef {name}(*given):\n    right = solution(*given)\n"
    return [
        Mistake(told, "", f"{head}    return {new}")
        for told, new in table("diagnosis")["usual"]["mistakes"].items()
    ]


@cache
def neighbours(answer: str, part: str) -> list[Mistake]:
    """Change this part of an answer in one place, by each rule of the table."""
    found = [
        Mistake(
            "",
            "",
            answer.replace(part, part[: place.start()] + place.expand(new) + part[place.end() :]),
        )
        for rules in table("diagnosis")["neighbours"].values()
        for old, new in rules.items()
        for place in re.finditer(old, part)
    ]
    # a changed bound may make a loop endless
    return [] if "while" in part else found[:: len(found) // 12 + 1]


@cache
def written(code: str, name: str) -> Value:
    """Run ``code``, and return what it calls ``name``."""
    names: dict[str, Value] = {"__name__": "submission"}
    run_cell(code, "a mistake", names)
    return names.get(name)
