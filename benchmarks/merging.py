"""What is left of six adapters in one: every method on every suite, five seeds, scales tuned.

python -m benchmarks merging              prints the tables and writes benchmarks/merging.json
python -m benchmarks merging --pairs      only overlap of pairs against what they lose when added up
python -m benchmarks merging --fixed      only the sum, at weights that need no data
python -m benchmarks merging --seeds 1    prints and writes nothing
python -m benchmarks merging --quick      two suites, a step for each adapter; writes nothing
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from claims.lab import suites
from claims.lab.recording import compact
from claims.lab.rules import Figure
from lora_np.files import write_whole
from lora_np.lora import MERGE_METHODS
from lora_np.table import Cell, Table
from recipes.pages import markdown

RESULTS = Path(__file__).with_suffix(".json")
SUITES: dict[str, Any] = {
    "digits, mild": suites.Digits("mild"),
    "digits, hard": suites.Digits("hard", lr=1.25e-2),
    "digits, own heads": suites.Digits("heads"),
    "styles": suites.Styles(),
    **{f"conflict {c:g}": suites.Digits("conflict", conflict=c) for c in (0, 0.25, 0.5, 0.75, 1)},
}
PAIRED = ("digits, mild", "digits, hard", "digits, own heads", "conflict 0.5", "styles")
MEASURES = {"right": "share read right, of the single adapters'", "loss": "loss in nats"}
SAME = ("cat",)  # as another row
LOST = {"lost": "in nats", "share": "relative to what the single adapters gain"}
GUESSES = ("overlap", "cosine", "moved")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks merging", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--suites", nargs="*", choices=[*SUITES])
    parser.add_argument(
        "--pairs", action="store_true", help="overlap of pairs against what they lose"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two suites, one seed, a step for each adapter"
    )
    parser.add_argument("--fixed", action="store_true", help="the sum at weights that need no data")
    parser.add_argument(
        "--page", action="store_true", help="print the recorded tables as the page has them"
    )
    asked = parser.parse_args(arguments)
    if asked.page:
        print("\n\n".join(pages(json.loads(RESULTS.read_text(encoding="utf-8"))).values()))
        return
    chosen = asked.suites or (PAIRED if asked.pairs or asked.fixed else [*SUITES])
    suites_of = {name: SUITES[name] for name in chosen}
    if asked.quick:
        asked.seeds = 1
        suites_of = {
            "digits, mild": suites.Digits("mild", steps=1),
            "styles": suites.Styles(steps=5, batch=1, held=1),
        }
    ask: Callable[[Any, int], dict[str, Any]]
    ask = fixed if asked.fixed else paired if asked.pairs else measured
    found: dict[str, Any] = {
        name: [ask(suite, seed) for seed in range(asked.seeds)] for name, suite in suites_of.items()
    }
    if asked.seeds == 5:
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        for name, runs in found.items():
            part = {"fixed": by_weight(runs)} if asked.fixed else {"pairs": runs}
            whole = gathered(runs) if ask is measured else part
            known[name] = known.get(name, {}) | whole
        text = compact(
            json.dumps({name: known[name] for name in SUITES if name in known}, indent=1)
        )
        write_whole(RESULTS, lambda file: file.write(text.encode()))
    if asked.pairs:
        print(correlations(found))
        return
    if asked.fixed:
        for name, runs in found.items():
            said = (f"{weight}: {interval(values)}" for weight, values in by_weight(runs).items())
            print(name, *said, sep="\n    ")
        return
    for name, runs in found.items():
        print(table(name, gathered(runs)), end="\n\n")


def measured(suite: Any, seed: int) -> dict[str, Any]:
    """One seed: for each method and measure, tuned and by default."""
    tasks = suite.tasks(seed)
    grams = {name: suite.grams(task) for name, task in tasks.items()}
    own = suites.scores(suite, tasks, "test")
    nothing = suites.merged(tasks, "sum", seed, weights=dict.fromkeys(tasks, 0.0))
    found: dict[str, Any] = {"no adapter": {}}
    for measure in own:
        found["no adapter"][measure] = {"tuned": relative(suite, tasks, own, measure, nothing, 1.0)}
    for way in (way for way in MERGE_METHODS if way not in SAME):
        found[way] = each_measure(suite, tasks, own, suites.merged(tasks, way, seed, grams=grams))
    equal = suites.merged(tasks, "sum", seed, weights=suites.equal_norms(tasks))
    found["sum, equal norms"] = each_measure(suite, tasks, own, equal)
    found["sum, tuned weights"] = {}
    for measure in own:
        start = found["sum"][measure]["scale"]
        weights = suites.best_weights(suite, tasks, seed, measure, start)
        updates = suites.merged(tasks, "sum", seed, weights=weights)
        tuned = relative(suite, tasks, own, measure, updates, 1.0)
        found["sum, tuned weights"][measure] = {"tuned": tuned}
    return {"ways": found, "own": own}


def fixed(suite: Any, seed: int) -> dict[str, float]:
    """The sum at weights that need no data; the first measure of the suite."""
    tasks = suite.tasks(seed)
    own = suites.scores(suite, tasks, "test")
    measure = "right" if "right" in own else "loss"
    updates = suites.merged(tasks, "sum", seed)
    weights = {"1/n": 1 / len(tasks), "0.5": 0.5, "0.7": 0.7, "1": 1.0}
    return {
        name: round(relative(suite, tasks, own, measure, updates, weight), 4)
        for name, weight in weights.items()
    }


def by_weight(runs: list[dict[str, float]]) -> dict[str, list[float]]:
    return {weight: [run[weight] for run in runs] for weight in runs[0]}


def paired(suite: Any, seed: int) -> dict[str, dict[str, float]]:
    """For each pair of tasks what is guessed, and what is lost, in nats."""
    tasks = suite.tasks(seed)
    grams = {name: suite.grams(task) for name, task in tasks.items()}
    lost = suites.pair_losses(suite, tasks)
    found = {pair: guess | lost[pair] for pair, guess in suites.guesses(tasks, grams).items()}
    return {
        pair: {name: round(x, 4) for name, x in numbers.items()} for pair, numbers in found.items()
    }


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
    return float(np.mean(scores if measure == "loss" else np.divide(scores, own[measure])))


def gathered(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """All seeds as lists."""
    ways: dict[str, Any] = {}
    for way, measures in runs[0]["ways"].items():
        for measure, numbers in measures.items():
            for name in numbers:
                values = [round(run["ways"][way][measure][name], 4) for run in runs]
                ways.setdefault(way, {}).setdefault(measure, {})[name] = values
    own = {m: [round(float(np.mean(run["own"][m])), 4) for run in runs] for m in runs[0]["own"]}
    return {"own": own, "ways": ways}


def table(name: str, found: dict[str, Any]) -> Table:
    """A row for each method, the best first."""
    measures = [measure for measure in MEASURES if measure in found["own"]]
    heads = [head for m in measures for head in (f"{m}, tuned", f"{m}, default", f"{m}: scale")]
    sign = -1 if measures[0] == "right" else 1
    order = sorted(
        found["ways"], key=lambda way: sign * np.mean(found["ways"][way][measures[0]]["tuned"])
    )
    single = [cell for m in measures for cell in (interval(found["own"][m]), None, None)]
    rows: list[list[Cell]] = [["single adapters", *single]]
    for way in order:
        cells: list[Cell] = [way]
        for measure in measures:
            numbers = found["ways"][way][measure]
            default = interval(numbers["default"]) if "default" in numbers else None
            scale = f"{np.median(numbers['scale']):g}" if "scale" in numbers else None
            cells += [interval(numbers["tuned"]), default, scale]
        rows.append(cells)
    return Table(
        ["method", *heads], rows, title=name, notes=[f"{m}: {MEASURES[m]}" for m in measures]
    )


def correlations(found: dict[str, list[dict[str, dict[str, float]]]]) -> Table:
    """Rank correlation of each guess with the loss, by seed, over the pairs of a suite and of
    all.
    """
    groups = {name: [name] for name in found} | {"all of these": [*found]}
    rows: list[list[Cell]] = []
    for name, members in groups.items():
        for lost in LOST:
            seeds = [
                [pair for member in members for pair in found[member][i].values()]
                for i in range(len(found[members[0]]))
            ]
            cells = [
                interval([suites.rank_correlation(*column(pairs, guess, lost)) for pairs in seeds])
                for guess in GUESSES
            ]
            rows.append([name, lost, len(seeds[0]), *cells])
    heads = ["suite", "with", "pairs per seed", *GUESSES]
    notes = [f"{name}: {what}" for name, what in LOST.items()]
    return Table(heads, rows, title="Rank correlation with what the sum loses", notes=notes)


def pages(known: dict[str, Any]) -> dict[str, str]:
    """The recorded tables in Markdown: the suites, levels of conflict, and the pairs."""
    suite_names = [name for name in known if not name.startswith("conflict")]
    levels = [name for name in known if name.startswith("conflict")]
    paired_suites = {
        name: known[name]["pairs"] for name in PAIRED if "pairs" in known.get(name, {})
    }

    def right(name: str) -> str:
        return "right" if "right" in known[name]["own"] else "loss"

    order = sorted(known["digits, mild"]["ways"], key=lambda way: -rank_of(known, suite_names, way))

    def cell(name: str, way: str) -> str:
        numbers = known[name]["ways"][way][right(name)]
        default = f" ({np.mean(numbers['default']):.2f})" if "default" in numbers else ""
        return interval(numbers["tuned"]) + default

    single = [
        "single adapters",
        *(
            f"{1 if right(n) == 'right' else np.mean(known[n]['own']['loss']):.3f}"
            for n in suite_names
        ),
    ]
    rows = [single] + [[way, *(cell(name, way) for name in suite_names)] for way in order]
    level_rows = [[way, *(cell(name, way) for name in levels)] for way in order]
    return {
        "suites": markdown(Table(["method", *suite_names], rows)),
        "conflict": markdown(
            Table(["method", *(name.removeprefix("conflict ") for name in levels)], level_rows)
        ),
        "pairs": markdown(correlations(paired_suites)),
    }


def rank_of(known: dict[str, Any], names: list[str], way: str) -> float:
    """How many methods it beats, over the suites."""
    total = 0.0
    for name in names:
        measure = "right" if "right" in known[name]["own"] else "loss"
        means = {w: np.mean(each[measure]["tuned"]) for w, each in known[name]["ways"].items()}
        beaten = [means[way] > x if measure == "right" else means[way] < x for x in means.values()]
        total += float(np.sum(beaten))
    return total


def column(pairs: list[dict[str, float]], *names: str) -> list[list[float]]:
    return [[pair[name] for pair in pairs] for name in names]


def interval(values: list[float]) -> str:
    figure = Figure(tuple(values))
    return f"{figure.mean:.3f} ± {(figure.high - figure.low) / 2:.3f}"
