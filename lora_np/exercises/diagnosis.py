"""Compare answers with known mistakes, and find the parameters that an answer ignores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise

from lora_np.exercises.forbidden import Rules
from lora_np.exercises.inputs import Counterexample
from lora_np.exercises.regions import table
from lora_np.exercises.running import ANYTHING, Mistake, Reply, values_alike
from lora_np.exercises.values import Value

Broken = Counterexample | None  # None if the law holds
# number of inputs needed to prove a mistake, and of tests that a law needs in each region
OFTEN = 5


def alike(a: Broken, b: Broken) -> bool:
    """Return whether two answers break a law in the same way, or both satisfy it."""
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
    asked: Callable[[], Iterator[Sequence[Value]]],
) -> str:
    """Return a text that names the parameters that the answer ignores; empty if there are none."""
    names = []
    for i, name in enumerate(parameters):
        changes = 0
        for one, other in pairwise(asked()):
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
def usual(name: str) -> list[Mistake]:
    """List mistakes that are possible in every exercise: each changes the solution's result."""
    head = f"def {name}(*given):\n    right = solution(*given)\n"
    return [
        Mistake(told, "", f"{head}    return {new}")
        for told, new in table("diagnosis")["usual"]["mistakes"].items()
    ]


@cache
def written(code: str, name: str, answer: str = "") -> Value:
    """Run ``code`` and return the function ``name`` that it defines.

    With ``answer``, the code may call the function that ``answer`` defines as ``solution``.
    """
    solution = written(answer, name) if answer else None
    names = {"__name__": "submission", "solution": solution}
    exec(compile(code, "<a mistake>", "exec", dont_inherit=True), names)
    return names[name]
