"""Name the mistake behind an answer, where enough inputs tell it from everything similar."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from lora_np.exercises.inputs import Counterexample
from lora_np.exercises.laws import FINITE
from lora_np.exercises.running import Mistake, Reply, run_cell, values_alike
from lora_np.exercises.values import Value

Broken = Counterexample | None  # None where the law holds
Given = Callable[[int], Broken]  # how an answer breaks a law on the input of this number
NEIGHBOURS = 40  # of a solution that are tried
OFTEN = 5  # inputs that prove something, and that a law sees of each region


@cache
def table() -> dict[str, Any]:
    """Read ``diagnosis.toml``."""
    path = Path(__file__).parent / "data" / "diagnosis.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def diagnosis(
    mistakes: Sequence[tuple[Mistake, Given]],
    others: Sequence[tuple[Mistake, Given]],
    given: Sequence[Broken],
) -> Mistake | None:
    """Find the mistake that explains an answer, if inputs prove it.

    It gives what the answer gives on every input. On five of them or more the answer breaks the
    law with a value, and each other mistake differs from it on five of them or more.

    Parameters
    ----------
    mistakes : sequence of Mistake and callable
        Those that are known, and what each gives.
    others : sequence of Mistake and callable
        Those that any exercise allows, and changes of the solution, which have no name. One that
        is never different is the mistake that is found, in other words.
    given : sequence of Counterexample or None
        How the answer breaks the law on each input.
    """
    broken = [i for i, one in enumerate(given) if one]
    places = [*broken, *(i for i, one in enumerate(given) if not one)]
    telling = [one for one in given if one and "value" in one.asked[1]]

    def same(other: Given) -> bool:
        return all(alike(given[i], other(i)) for i in places)

    def apart(other: Given) -> bool:
        differences = (i for i in places if not alike(given[i], other(i)))
        return len([*islice(differences, OFTEN)]) == OFTEN

    named = (one for one, other in [*mistakes, *others] if one.name and same(other))
    found = next(named, None) if len(telling) >= OFTEN else None
    proved = (apart(other) for one, other in mistakes if one is not found)
    spared = (apart(other) or same(other) for _, other in others)
    return found if found and all(proved) and all(spared) else None


def alike(a: Broken, b: Broken) -> bool:
    """Return whether two answers are the same in what a law compares."""
    if a is None or b is None:
        return a is b
    if a.why.name != b.why.name or a.why.name == FINITE:
        return a.why.name == b.why.name
    if a.why.compared is None or a.why.name:
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
    answer: Callable[[Sequence[Value]], Reply],
    solution: Callable[[Sequence[Value]], Reply],
    asked: Sequence[Sequence[Value]],
) -> str:
    """Name the parameters that change what the solution returns, and never what the answer does."""
    names = []
    for i, name in enumerate(parameters):
        changes = 0
        for one, other in zip(asked, [*asked[1:], *asked[:1]], strict=True):
            new = [*one[:i], other[i], *one[i + 1 :]]
            (a, b), (right, changed) = map(answer, (one, new)), map(solution, (one, new))
            if "value" in changed and not replies_alike(changed, right):
                if "value" not in b or not values_alike(b["value"], a.get("value"), 1e-9):
                    break
                changes += 1
        else:
            names += [name] * (changes >= OFTEN)
    return f"without using {' and '.join(names)}" * bool(names)


@cache
def usual(answer: str, name: str) -> list[Mistake]:
    """List the mistakes that any exercise allows: each changes what ``answer`` returns."""
    head = f"{answer}\nsolution = {name}\n\ndef {name}(*given):\n    right = solution(*given)\n"
    return [Mistake(told, "", f"{head}    return {new}") for told, new in table()["usual"].items()]


@cache
def neighbours(answer: str, part: str) -> list[Mistake]:
    """Change this part of an answer in one place, by each rule of the table."""
    found = [
        Mistake(
            "",
            "",
            answer.replace(part, part[: place.start()] + place.expand(new) + part[place.end() :]),
        )
        for old, new in table()["neighbours"]["rules"]
        for place in re.finditer(old, part)
    ]
    # changed, a loop may never end
    return [] if "while" in part else found[:: len(found) // NEIGHBOURS + 1]


@cache
def written(code: str, name: str) -> Value:
    """Run ``code``, and return what it calls ``name``."""
    names: dict[str, Value] = {"__name__": "submission"}
    run_cell(code, "a mistake", names)
    return names.get(name)
