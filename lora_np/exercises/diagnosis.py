"""Name the mistake behind an answer that breaks a law, by what the law compares."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from lora_np.checks import Array
from lora_np.exercises.inputs import Counterexample
from lora_np.exercises.laws import LawBroken
from lora_np.exercises.running import Mistake, Reply, run_cell, values_alike
from lora_np.exercises.values import Value

Broken = Counterexample | None  # None where the law holds

# What an error says, or which law of all answers is broken, and what that comes from.
FAILURES = {
    "^The shape of": "with more or fewer axes, rows or columns",
    "NameError|UnboundLocalError": "with a name that has no value yet",
    r"object has no|object is not|not iterable|0-dim|0 dim|shape \(\)|scalar": (
        "with a number where an array or a list is needed"
    ),
    "IndexError|KeyError": "with an index that is not there",
    "unsupported operand|has no len": "with a value of another type than is needed",
    "mismatch|broadcast|aligned|imension": "with shapes that do not fit each other",
    "ZeroDivisionError": "with a division by zero",
    "An answer is finite": "with a division by zero, or a root or logarithm of a negative number",
}


def diagnosis(
    mistakes: Iterable[Mistake],
    shown: Sequence[Broken],
    tried: Callable[[str], Iterable[Broken]],
    unused: Callable[[Sequence[Value]], str],
) -> Mistake | None:
    """Find a known mistake, or a relation to what is right, that explains how a law is broken.

    Parameters
    ----------
    mistakes : iterable of Mistake
        Of the exercise.
    shown : sequence of Counterexample or None
        How the answer breaks the law on several inputs.
    tried : callable
        How a mistake's code breaks it on the same inputs.
    unused : callable
        A parameter that a right answer uses, and this one does not when it is called so.
    """
    for mistake in mistakes:
        if all(map(alike, shown, tried(mistake.code))):
            return mistake
    broken = [one for one in shown if one]
    if not broken:  # it answers differently each time
        return None
    name = failure(broken[0].why)
    if not name and all(one.why.right is not None for one in broken):
        name = relation([(np.array(one.why.compared), np.array(one.why.right)) for one in broken])
    name = name or unused([one.asked[0] for one in broken])
    return Mistake(name, "", "") if name else None


def alike(a: Broken, b: Broken) -> bool:
    """Return whether two answers are the same in what a law compares."""
    if a is None or b is None:
        return a is b
    if a.why.name != b.why.name:
        return False
    if a.why.compared is None or a.why.name:
        return replies_alike(a.asked[1], b.asked[1])
    return values_alike(a.why.compared, b.why.compared)


def replies_alike(a: Reply, b: Reply) -> bool:
    """Return whether two calls returned the same value, or failed in the same way."""
    if "value" in a and "value" in b:
        return values_alike(a["value"], b["value"])
    first, second = (str(reply.get("error", "")).partition(" (line")[0] for reply in (a, b))
    return bool(first) and first == second


def failure(why: LawBroken) -> str:
    """Say what an error, or a value that no answer may have, comes from."""
    if why.name and why.right is not None:
        got, wanted = (np.array(shape).tolist() for shape in (why.compared, why.right))
        if got == wanted[::-1]:
            return "with rows and columns exchanged"
    return next((name for words, name in FAILURES.items() if re.search(words, str(why))), "")


def relation(pairs: Sequence[tuple[Array, Array]]) -> str:
    """Name the factor between what is given and what is right, if it is one on all inputs."""
    got, right = pairs[-1]
    factor = float(np.vdot(got, right) / np.vdot(right, right))
    if not all(values_alike(got, factor * right) for got, right in pairs):
        return ""
    names = {-1.0: "with the opposite sign", 0.0: "with zeros only"}
    return names.get(factor, f"with a factor of {factor:.3g} too much")


def unused(
    parameters: Sequence[str],
    calls: Sequence[Callable[[Sequence[Value]], Reply]],
    asked: Sequence[Sequence[Value]],
) -> str:
    """Name the parameter whose value changes what the second of two functions returns, alone."""
    for i, name in enumerate(parameters):
        changed = []
        for one in asked:
            value = one[i]
            if isinstance(value, (int, float, np.ndarray)):
                changed.append([*one[:i], 2 * value + 1, *one[i + 1 :]])
        same, right = (
            [replies_alike(call(new), call(old)) for old, new in zip(asked, changed, strict=False)]
            for call in calls
        )
        if same and all(same) and not all(right):
            return f"without using {name}"
    return ""


def written(code: str, name: str) -> Value:
    """Run ``code``, and return what it calls ``name``."""
    names: dict[str, Value] = {"__name__": "submission"}
    run_cell(code, "a mistake", names)
    return names.get(name)
