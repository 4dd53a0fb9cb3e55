"""What is left of six adapters in one: every way to merge on every suite, five seeds, scales tuned on validation.

python -m benchmarks merging              prints the tables and writes benchmarks/merging.json
python -m benchmarks merging --seeds 1    prints only
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from claims import suites
from claims.protocol import Figure
from lora_np.files import write_whole
from lora_np.lora import WAYS
from lora_np.table import Cell, Table

RESULTS = Path(__file__).with_suffix(".json")
SUITES: dict[str, Any] = {
    "digits, mild": suites.Digits("mild"),
    "digits, hard": suites.Digits("hard", lr=1.25e-2),
    "digits, own heads": suites.Digits("heads"),
    "styles": suites.Styles(),
    **{f"dial {c:g}": suites.Digits("dial", conflict=c) for c in (0, 0.25, 0.5, 0.75, 1)},
}
MEASURES = {"right": "share read right, of the single adapters'", "loss": "loss in nats"}
DRAWN = ("cat",)  # the same as another row


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks merging", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--suites", nargs="*", default=[*SUITES], choices=[*SUITES])
    asked = parser.parse_args(arguments)
    found = {name: [measured(SUITES[name], seed) for seed in range(asked.seeds)] for name in asked.suites}
    if asked.seeds == 5:
        old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        text = json.dumps(old | {name: gathered(runs) for name, runs in found.items()}, indent=1)
        write_whole(RESULTS, lambda file: file.write(text.encode() + b"\n"))
    for name, runs in found.items():
        print(table(name, gathered(runs)), end="\n\n")


def measured(suite: Any, seed: int) -> dict[str, Any]:
    """One seed: for each way and measure, tuned and by default; guesses and losses of pairs."""
    tasks = suite.tasks(seed)
    grams = {name: suite.grams(task) for name, task in tasks.items()}
    own = suites.scores(suite, tasks, "test")
    nothing = suites.merged(tasks, "sum", seed, weights=dict.fromkeys(tasks, 0.0))
    found: dict[str, Any] = {"no adapter": {}}
    for measure in own:
        found["no adapter"][measure] = {"tuned": relative(suite, tasks, own, measure, nothing, 1.0)}
    for way in (way for way in WAYS if way not in DRAWN):
        updates = suites.merged(tasks, way, seed, grams=grams)
        found[way] = each_measure(suite, tasks, own, updates)
    equal = suites.merged(tasks, "sum", seed, weights=suites.equal_norms(tasks))
    found["sum, equal norms"] = each_measure(suite, tasks, own, equal)
    found["sum, tuned weights"] = {}
    for measure in own:
        start = found["sum"][measure]["scale"]
        weights = suites.best_weights(suite, tasks, seed, measure, start)
        updates = suites.merged(tasks, "sum", seed, weights=weights)
        found["sum, tuned weights"][measure] = {"tuned": relative(suite, tasks, own, measure, updates, 1.0)}
    guesses, lost = suites.touched(tasks, grams), suites.pair_losses(suite, tasks)
    pairs = {pair: guess | {"lost": lost[pair]} for pair, guess in guesses.items()}
    return {"ways": found, "pairs": pairs, "own": {measure: own[measure] for measure in own}}


def each_measure(suite: Any, tasks: Any, own: Any, updates: Any) -> dict[str, dict[str, float]]:
    found = {}
    for measure in own:
        scale = suites.best_scale(suite, tasks, updates, measure)
        tuned, default = (relative(suite, tasks, own, measure, updates, s) for s in (scale, 1.0))
        found[measure] = {"tuned": tuned, "default": default, "scale": scale}
    return found


def relative(suite: Any, tasks: Any, own: Any, measure: str, updates: Any, scale: float) -> float:
    """On test data: the share of what the single adapters read right, or the loss."""
    scores = suites.scores(suite, tasks, "test", updates, scale)[measure]
    if measure == "loss":
        return float(np.mean(scores))
    return float(np.mean(np.divide(scores, own[measure])))


def gathered(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """All seeds as lists."""
    ways = {way: {measure: {name: [round(run["ways"][way][measure][name], 4) for run in runs] for name in numbers}
                  for measure, numbers in measures.items()}
            for way, measures in runs[0]["ways"].items()}  # fmt: skip
    pairs = [{pair: {name: round(x, 4) for name, x in numbers.items()} for pair, numbers in run["pairs"].items()}
             for run in runs]  # fmt: skip
    own = {
        measure: [round(float(np.mean(run["own"][measure])), 4) for run in runs] for measure in runs[0]["own"]
    }
    return {"own": own, "ways": ways, "pairs": pairs}


def table(name: str, found: dict[str, Any]) -> Table:
    """A row for each way, the best first."""
    measures = [measure for measure in MEASURES if measure in found["own"]]
    heads = [head for m in measures for head in (f"{m}, tuned", f"{m}, default", f"{m}: scale")]
    sign = -1 if measures[0] == "right" else 1
    order = sorted(found["ways"], key=lambda way: sign * np.mean(found["ways"][way][measures[0]]["tuned"]))
    rows: list[list[Cell]] = [
        ["single adapters", *(x for m in measures for x in (interval(found["own"][m]), None, None))]
    ]
    for way in order:
        cells: list[Cell] = [way]
        for measure in measures:
            numbers = found["ways"][way][measure]
            cells += [interval(numbers["tuned"]), interval(numbers["default"]) if "default" in numbers else None,
                      f"{np.median(numbers['scale']):g}" if "scale" in numbers else None]  # fmt: skip
        rows.append(cells)
    return Table(["way", *heads], rows, title=name, notes=[f"{m}: {MEASURES[m]}" for m in measures])


def interval(values: list[float]) -> str:
    figure = Figure(tuple(values))
    return f"{figure.mean:.3f} +- {figure.half:.3f}"
