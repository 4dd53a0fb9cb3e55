"""What inputs are worth when an adapter is cut or extracted: held-out loss at equal bytes.

python -m benchmarks weighted       prints the tables and writes benchmarks/weighted.json
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from claims import beds, suites
from claims.protocol import compact
from lora_np import adapters, language, merge
from lora_np.files import write_whole
from lora_np.table import Cell, Table

RESULTS = Path(__file__).with_suffix(".json")
SHIPPED = {"king-james": "genesis", "devils-dictionary": "devils-dictionary", "genesis-by-peft": "genesis"}
GRAM_TEXT, HELD = 20_000, 24  # characters, and rows of 256


def main(arguments: list[str]) -> None:
    folder = Path(tempfile.mkdtemp())
    rows: list[dict[str, Any]] = []
    for number, (name, kind, adapter, text, held, ranks) in enumerate(chosen()):
        grams = language.grams(beds.shipped(), text)
        whole = loss(adapter, held)
        for rank in ranks:
            row = {"adapter": name, "kind": kind, "rank": rank, "base": mean(held), "whole": whole}
            for how, given in (("plain", None), ("weighted", grams)):
                out = folder / f"{number}-{rank}-{how}"
                adapters.resize(adapter, out, rank=rank, grams=given)
                row[f"resize, {how}"] = loss(adapters.load(out), held)
                row[f"bytes, {how}"] = sum(path.stat().st_size for path in out.glob("*.safetensors"))
                if kind == "shipped":
                    row[f"extract, {how}"] = extracted(
                        adapter, folder / f"x{number}-{rank}-{how}", rank, given, held
                    )
            rows.append(row)
            print(row, flush=True)
    write_whole(RESULTS, lambda file: file.write(compact(json.dumps(rows, indent=1)).encode()))
    print(table(rows))


def chosen() -> Iterator[tuple[str, str, Any, str, Any, tuple[int, ...]]]:
    """Adapters, each with a text for the inputs, rows that it has not seen, and ranks to cut it to."""
    encode = beds.shipped().vocabulary.encode
    for name, text in SHIPPED.items():
        whole = language.read_text(text)
        held = language.windows(encode(whole[len(whole) * 9 // 10 :]), 256)[:HELD]
        yield (
            name,
            "shipped",
            adapters.load(language.located_adapter(name)),
            whole[:GRAM_TEXT],
            held,
            (1, 2, 4),
        )
    for seed in (0, 1):
        for name, task in suites.Styles().tasks(seed).items():
            text = suites.texts()[name][:GRAM_TEXT]
            yield f"{name}, seed {seed}", "trained", suites.adapter(task), text, task.parts["test"], (1, 2)


def loss(adapter: Any, held: Any) -> float:
    return beds.mean_loss(merge(adapters.attach(beds.shipped(), adapter)), held)


def mean(held: Any) -> float:
    return beds.mean_loss(beds.shipped(), held)


def extracted(adapter: Any, folder: Path, rank: int, grams: Any, held: Any) -> float:
    """The loss of what `extract` finds between the base and the merged model, rounded to float32."""
    base, tuned = folder / "base", folder / "tuned"
    folder.mkdir()
    language.save(beds.shipped(), base)
    language.save(merge(adapters.attach(beds.shipped(), adapter)), tuned)
    adapters.extract(base, tuned, folder / "out", rank=rank, grams=grams)
    return loss(adapters.load(folder / "out"), held)


def table(rows: list[dict[str, Any]]) -> Table:
    """Of what an adapter gains over the base, the share that is left; a row for each kind and rank."""
    found: list[list[Cell]] = []
    for kind, rank in dict.fromkeys((row["kind"], row["rank"]) for row in rows):
        some = [row for row in rows if (row["kind"], row["rank"]) == (kind, rank)]
        for what in ("resize", "extract"):
            if f"{what}, plain" not in some[0]:
                continue
            left = {how: [kept(row, f"{what}, {how}") for row in some] for how in ("plain", "weighted")}
            more = np.subtract(left["weighted"], left["plain"])
            better = sum(row[f"{what}, weighted"] < row[f"{what}, plain"] for row in some)
            means = [f"{np.mean(left[how]):.3f}" for how in left]
            found.append([kind, what, rank, *means, f"{np.mean(more):.3f}", f"{better} of {len(some)}"])
    heads = ["adapters", "command", "rank", "plain", "weighted", "more", "lower loss in"]
    return Table(heads, found, title="Share of the gain over the base that is left, held out")


def kept(row: dict[str, Any], what: str) -> float:
    return float((row["base"] - row[what]) / (row["base"] - row["whole"]))
