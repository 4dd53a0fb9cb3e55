"""What inputs are worth when an adapter is cut or extracted: held-out loss at equal bytes.

python -m benchmarks weighted            prints the tables and writes benchmarks/weighted.json
python -m benchmarks weighted --quick    a shipped adapter and three of one step; writes nothing
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from claims.lab import setups, suites
from claims.lab.recording import compact
from lora_np import adapters, hub, language, merge
from lora_np.files import write_whole
from lora_np.table import Cell, Table

RESULTS = Path(__file__).with_suffix(".json")
SHIPPED = {
    "king-james": "genesis",
    "devils-dictionary": "devils-dictionary",
    "genesis-by-peft": "genesis",
}
GRAM_TEXT = 16_000  # characters
RANKS, TOTALS = (1, 2, 4), (28, 56)  # of each module; of all together, of the shipped adapters
GOALS: dict[str, tuple[int, ...]] = {"rank": RANKS, "total_rank": TOTALS}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks weighted", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--quick", action="store_true", help="fewer adapters, of a single step; writes nothing"
    )
    if parser.parse_args(arguments).quick:
        few: dict[str, tuple[int, ...]] = {"rank": RANKS[:1], "total_rank": TOTALS[:1]}
        rows = [*itertools.islice(shipped(few, 2000), 2), *itertools.islice(trained(steps=1), 2)]
    else:
        rows = [*shipped(GOALS, None), *trained()]
        write_whole(RESULTS, lambda file: file.write(compact(json.dumps(rows, indent=1)).encode()))
    print(losses(rows), table(rows), sep="\n\n")


def shipped(goals: dict[str, tuple[int, ...]], most: int | None) -> Iterator[dict[str, Any]]:
    """Measure the adapters of the package, resized, and extracted again from merged models; on at
    most so many characters of each text.
    """
    for name, source in SHIPPED.items():
        adapter, text = adapters.load(language.located_adapter(name)), language.read_text(source)
        loss = functools.partial(language_loss, text[len(text) * 9 // 10 :][:most])
        grams = language.grams(setups.shipped(), text[: most or GRAM_TEXT])
        save = functools.partial(language_pair, adapter)
        yield from cut("shipped", name, adapter, loss, grams, save, **goals)


def trained(**settings: Any) -> Iterator[dict[str, Any]]:
    """Twelve of digits: the six mild changes and the six hard ones."""
    for suite in (suites.Digits("mild", **settings), suites.Digits("hard", lr=1.25e-2, **settings)):
        for name, task in suite.tasks(0).items():
            loss = functools.partial(digits_loss, suite, task)
            save = functools.partial(digits_pair, task)
            yield from cut(
                "trained", name, suites.adapter(task), loss, suite.grams(task), save, rank=(1, 2)
            )


def cut(
    kind: str, name: str, adapter: Any, loss: Any, grams: Any, save: Any, **goals: Any
) -> Iterator[dict[str, Any]]:
    """Held-out losses of one adapter at smaller ranks, cut and extracted."""
    folder = Path(tempfile.mkdtemp())
    base, tuned = save(folder)
    whole = {"adapter": name, "kind": kind, "base": loss(None), "whole": loss(adapter)}
    for goal, number in ((goal, number) for goal, numbers in goals.items() for number in numbers):
        smaller: dict[str, Any] = {goal: number}
        row = {**whole, **smaller}
        for how, given in (("plain", None), ("weighted", grams)):
            out, found = folder / f"{goal}-{number}-{how}", folder / f"x-{goal}-{number}-{how}"
            adapters.resize(adapter, out, **smaller, grams=given)
            row[f"resize, {how}"] = loss(adapters.load(out))
            row[f"bytes, {how}"] = sum(path.stat().st_size for path in out.glob("*.safetensors"))
            adapters.extract(base, tuned, found, **smaller, grams=given)
            row[f"extract, {how}"] = loss(adapters.load(found))
        yield row


def language_loss(held: str, adapter: Any) -> float:
    base = setups.shipped()
    return language.likelihood(
        base if adapter is None else adapters.attach(base, adapter), held
    ).loss


def digits_loss(suite: Any, task: Any, adapter: Any) -> float:
    updates = {} if adapter is None else {path: module.delta() for path, module in adapter.items()}
    return float(suite.score(task.model(updates), task.parts["test"])["loss"])


def language_pair(adapter: Any, folder: Path) -> tuple[Path, Path]:
    """Directories of the base and of the merged model."""
    language.save(setups.shipped(), folder / "base")
    language.save(merge(adapters.attach(setups.shipped(), adapter)), folder / "tuned")
    return folder / "base", folder / "tuned"


def digits_pair(task: Any, folder: Path) -> tuple[Path, Path]:
    """The same of the adapted layers of a network."""
    layers = {path: task.base.layers[int(path.rpartition(".")[2])].W for path in task.pairs}
    for name, strength in (("base", 0), ("tuned", 1)):
        (folder / name).mkdir()
        weights = {
            f"{path}.weight": W + np.float32(strength) * np.matmul(*task.pairs[path])
            for path, W in layers.items()
        }
        hub.safetensors.save(weights, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text("{}")
    return folder / "base", folder / "tuned"


def losses(rows: list[dict[str, Any]]) -> Table:
    """Of the shipped adapters, cut: the loss of each, by weights and by outputs, the lower one
    bold.
    """
    known = [goal for goal in GOALS if any(goal in row for row in rows)]
    goals = dict.fromkeys(
        f"{goal.replace('_', ' ')} {row[goal]}"
        for goal in known
        for row in rows
        if row["kind"] == "shipped" and goal in row
    )
    heads = ["adapter", "its loss", "base", "", *goals]
    found: list[list[Cell]] = []
    for name in [name for name in SHIPPED if any(row["adapter"] == name for row in rows)]:
        some = [row for row in rows if row["adapter"] == name]
        first: list[Cell] = [f"`{name}`", f"{some[0]['whole']:.3f}", f"{some[0]['base']:.3f}"]
        for how, words in (("plain", "by weights"), ("weighted", "by outputs")):
            cells = []
            for row in some:
                lowest = min(row["resize, plain"], row["resize, weighted"])
                loss = row[f"resize, {how}"]
                cells.append(f"**{loss:.3f}**" if loss == lowest else f"{loss:.3f}")
            found.append([*(first if how == "plain" else [""] * 3), words, *cells])
    return Table(heads, found, title="Held-out loss of what is left, nats a character")


def table(rows: list[dict[str, Any]]) -> Table:
    """Of what an adapter gains over the base, the share that is left; a row for each kind and
    rank.
    """
    found: list[list[Cell]] = []
    rows = [row for row in rows if "rank" in row]
    for kind, rank in dict.fromkeys((row["kind"], row["rank"]) for row in rows):
        some = [row for row in rows if (row["kind"], row["rank"]) == (kind, rank)]
        for what in ("resize", "extract"):
            left = {
                how: [kept(row, f"{what}, {how}") for row in some] for how in ("plain", "weighted")
            }
            more = np.subtract(left["weighted"], left["plain"])
            better = sum(row[f"{what}, weighted"] < row[f"{what}, plain"] for row in some)
            means = [f"{np.mean(left[how]):.3f}" for how in left]
            found.append(
                [kind, what, rank, *means, f"{np.mean(more):.3f}", f"{better} of {len(some)}"]
            )
    heads = ["adapters", "command", "rank", "plain", "weighted", "more", "lower loss in"]
    return Table(heads, found, title="Share of the gain over the base that is left, held out")


def kept(row: dict[str, Any], what: str) -> float:
    return float((row["base"] - row[what]) / (row["base"] - row["whole"]))
