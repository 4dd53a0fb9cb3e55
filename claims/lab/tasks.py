"""Two more tasks of digits, for every claim that compares methods on digits: which of its parts turn?

    python -m claims sweep digits-names digits-near     about 3 CPU minutes a task
    python -m claims tasks                              data/tasks.json: each part on each task

All three tasks start from a network that reads upright digits. On *side*, the task of the claims, it
learns to read them on their side. On *names* the images stay as they are, and each class gets the
name of another one. On *near* the images are shifted by two pixels. Methods, rates, steps, halves and
the search are the same; a seed draws base, split, start and order (and the names). There are 16 seeds
on each of the two, and the recorded 64 on *side*.

The rule was fixed before the first run on the two tasks. A part of a claim is judged on each task by
the claim's own rule, with the same bound and the same smallest effect worth having. A part *turns* if
it is supported on one of the three tasks and contradicted on another. A claim of which a part turns
*depends on the task*, unless another part is contradicted on all three, so that the claim fails on
each (a condition that was added when the results were known). Figures that are counted, and figures
of other setups, cannot turn.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from claims.lab.protocol import SWEPT, Claim, Lab
from claims.lab.rules import CONTRADICTED, SUPPORTED, TASK, Figure, Part, Rule, listed
from claims.lab.trial import figures_of, read, rounded
from lora_np.files import write_whole

FILE = Path(__file__).parents[1] / "data" / "tasks.json"
TASKS = ("names", "near")
FIRST = "side"
WORDS = {FIRST: "on their side", "names": "with other names", "near": "shifted by two pixels"}


def figures(claim: Claim, task: str) -> dict[str, Figure]:
    """The figures of a claim on another task."""
    values = claim.measure(Lab(task=task))
    return read(claim, figures_of(claim, values))


def on_each(claim: Claim, first: Mapping[str, Figure]) -> dict[str, dict[str, Figure]]:
    """The figures that a claim's parts judge, on each task. Those that stay as they are on the first
    one are counted, or of another setup.
    """
    found = {FIRST: dict(first)} | {task: figures(claim, task) for task in TASKS}
    counted = {part.figure for part in claim.rule.parts}
    return {
        name: {task: some[name] for task, some in found.items()}
        for name in first
        if name in counted
        and all(name in some for some in found.values())
        and found[TASKS[0]][name].values != first[name].values
    }


def verdicts(rule: Rule, part: Part, by_task: Mapping[str, Figure]) -> dict[str, str]:
    """The verdict of a part on each task."""
    return {task: part.verdict(figure, outside=rule.outside) for task, figure in by_task.items()}


def turns(found: Mapping[str, str]) -> bool:
    """Whether a part is supported on one task and contradicted on another."""
    return {SUPPORTED, CONTRADICTED} <= {*found.values()}


def measured_on_each(claim: Claim, first: Mapping[str, Figure]) -> dict[str, Any]:
    """A claim's parts on each task, as JSON: mean, interval and verdict."""
    by_figure = on_each(claim, first)
    numbers = lambda one: {
        key: rounded(x) for key, x in (("mean", one.mean), ("low", one.low), ("high", one.high))
    }
    return {
        part.figure: {
            task: numbers(figure) | {"verdict": verdict}
            for (task, figure), verdict in zip(
                by_figure[part.figure].items(),
                verdicts(claim.rule, part, by_figure[part.figure]).values(),
                strict=True,
            )
        }
        for part in claim.rule.parts
        if part.figure in by_figure
    }


def record(claims: Mapping[str, Claim], results: Mapping[str, Any]) -> None:
    """Write the file, of every claim that sweeps digits."""
    sweep = lambda name: any(one.startswith(f"{SWEPT}: ") for one in results[name]["methods"])
    found = {
        name: measured_on_each(claim, read(claim, results[name]["figures"]))
        for name, claim in claims.items()
        if sweep(name)
    }
    text = json.dumps(found, indent=1) + "\n"
    write_whole(FILE, lambda file: file.write(text.encode()))
    recorded.cache_clear()


@functools.cache
def recorded() -> dict[str, dict[str, dict[str, Any]]]:
    """The file: by claim, then figure, then task."""
    known: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return known


def turning(name: str, failed: Collection[str] = ()) -> list[str]:
    """The figures of a claim whose part is supported on one task and contradicted on another; none if
    another part is contradicted on every task, or is of another setup and among those that ``failed``:
    the claim fails on each task then.
    """
    if not {*failed} <= {*recorded().get(name, {})}:
        return []
    known = {
        figure: {task: one["verdict"] for task, one in by_task.items()}
        for figure, by_task in recorded().get(name, {}).items()
    }
    if any({*found.values()} == {CONTRADICTED} for found in known.values()):
        return []
    return [figure for figure, found in known.items() if turns(found)]


def verdict(name: str, own: str, failed: Collection[str] = ()) -> str:
    """The verdict of a claim, given that of its first task and the parts that fail there."""
    return TASK if turning(name, failed) else own


def sentence(name: str, labels: Mapping[str, str], failed: Collection[str] = ()) -> str:
    """What turns, with its figures on each task."""
    said = []
    for figure in turning(name, failed):
        on = [
            f"{one['mean']:.3g} ({one['low']:.3g} to {one['high']:.3g}) {WORDS[task]}"
            for task, one in recorded()[name][figure].items()
        ]
        said.append(f"{labels[figure]}: {', '.join(on)}")
    return f"{TASK.capitalize()}. {listed(said)}" if said else ""
