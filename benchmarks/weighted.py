"""What inputs are worth when an adapter is cut or extracted: held-out loss at equal bytes.

python -m benchmarks weighted       prints the tables and writes benchmarks/weighted.json
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from claims import beds, suites
from claims.protocol import compact
from lora_np import adapters, hub, language, merge
from lora_np.files import write_whole
from lora_np.table import Cell, Table

RESULTS = Path(__file__).with_suffix(".json")
SHIPPED = {"king-james": "genesis", "devils-dictionary": "devils-dictionary", "genesis-by-peft": "genesis"}
GRAM_TEXT, HELD = 20_000, 24  # characters, and rows of 256


def main(arguments: list[str]) -> None:
    rows = [*shipped(), *trained()]
    write_whole(RESULTS, lambda file: file.write(compact(json.dumps(rows, indent=1)).encode()))
    print(table(rows))


def shipped() -> Iterator[dict[str, Any]]:
    """The three adapters of the package, cut, and extracted again from the merged models."""
    encode = beds.shipped().vocabulary.encode
    for name, source in SHIPPED.items():
        adapter, text = adapters.load(language.located_adapter(name)), language.read_text(source)
        held = language.windows(encode(text[len(text) * 9 // 10 :]), 256)[:HELD]
        loss = functools.partial(language_loss, held)
        grams = language.grams(beds.shipped(), text[:GRAM_TEXT])
        yield from cut(
            "shipped", name, adapter, loss, grams, (1, 2, 4), functools.partial(language_pair, adapter)
        )


def trained() -> Iterator[dict[str, Any]]:
    """Twelve of digits: the six mild changes and the six hard ones."""
    for suite in (suites.Digits("mild"), suites.Digits("hard", lr=1.25e-2)):
        for name, task in suite.tasks(0).items():
            loss = functools.partial(digits_loss, suite, task)
            save = functools.partial(digits_pair, task)
            yield from cut("trained", name, suites.adapter(task), loss, suite.grams(task), (1, 2), save)


def cut(
    kind: str, name: str, adapter: Any, loss: Any, grams: Any, ranks: Any, save: Any
) -> Iterator[dict[str, Any]]:
    """Held-out losses of one adapter at smaller ranks, cut and extracted; the bytes are equal."""
    folder = Path(tempfile.mkdtemp())
    base, tuned = save(folder)
    for rank in ranks:
        row = {"adapter": name, "kind": kind, "rank": rank, "base": loss(None), "whole": loss(adapter)}
        for how, given in (("plain", None), ("weighted", grams)):
            out, found = folder / f"{rank}-{how}", folder / f"x{rank}-{how}"
            adapters.resize(adapter, out, rank=rank, grams=given)
            row[f"resize, {how}"] = loss(adapters.load(out))
            row[f"bytes, {how}"] = sum(path.stat().st_size for path in out.glob("*.safetensors"))
            adapters.extract(base, tuned, found, rank=rank, grams=given)
            row[f"extract, {how}"] = float(loss(adapters.load(found)))
        yield row


def language_loss(held: Any, adapter: Any) -> float:
    base = beds.shipped()
    return beds.mean_loss(base if adapter is None else merge(adapters.attach(base, adapter)), held)


def digits_loss(suite: Any, task: Any, adapter: Any) -> float:
    updates = {} if adapter is None else {path: module.delta() for path, module in adapter.items()}
    return float(suite.score(task.model(updates), task.parts["test"])["loss"])


def language_pair(adapter: Any, folder: Path) -> tuple[Path, Path]:
    """Directories of the base and of the merged model."""
    language.save(beds.shipped(), folder / "base")
    language.save(merge(adapters.attach(beds.shipped(), adapter)), folder / "tuned")
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


def table(rows: list[dict[str, Any]]) -> Table:
    """Of what an adapter gains over the base, the share that is left; a row for each kind and rank."""
    found: list[list[Cell]] = []
    for kind, rank in dict.fromkeys((row["kind"], row["rank"]) for row in rows):
        some = [row for row in rows if (row["kind"], row["rank"]) == (kind, rank)]
        for what in ("resize", "extract"):
            left = {how: [kept(row, f"{what}, {how}") for row in some] for how in ("plain", "weighted")}
            more = np.subtract(left["weighted"], left["plain"])
            better = sum(row[f"{what}, weighted"] < row[f"{what}, plain"] for row in some)
            means = [f"{np.mean(left[how]):.3f}" for how in left]
            found.append([kind, what, rank, *means, f"{np.mean(more):.3f}", f"{better} of {len(some)}"])
    heads = ["adapters", "command", "rank", "plain", "weighted", "more", "lower loss in"]
    return Table(heads, found, title="Share of the gain over the base that is left, held out")


def kept(row: dict[str, Any], what: str) -> float:
    return float((row["base"] - row[what]) / (row["base"] - row["whole"]))
