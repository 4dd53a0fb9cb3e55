"""Three prompts baked into adapters of SmolLM2, two seeds each: what is left of the divergence.

python -m benchmarks baking MODEL             prints the table and writes benchmarks/baking.json
python -m benchmarks baking MODEL --seeds 1   prints, and writes nothing
python -m benchmarks baking MODEL --quick     one prompt, two steps; writes nothing
python -m benchmarks baking --page            prints the recorded table as the page has it
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from lora_np import language
from lora_np.files import write_text
from lora_np.language.adapting import peak_memory
from lora_np.nn import trainable
from lora_np.table import Table
from recipes.pages import markdown

PROMPTS = Path(__file__).with_name("prompts.json")
RESULTS = Path(__file__).with_suffix(".json")
SEEDS = 2


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks baking", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", nargs="?", help="SmolLM2-135M-Instruct, a directory or .gguf")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--page", action="store_true")
    parser.add_argument(
        "--quick", action="store_true", help="one prompt, two steps; writes nothing"
    )
    asked = parser.parse_args(arguments)
    if asked.page or asked.model is None:
        print(markdown(table(json.loads(RESULTS.read_text(encoding="utf-8")))))
        return
    model, prompts = language.load(asked.model), json.loads(PROMPTS.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = []
    how: dict[str, Any] = {}
    if asked.quick:
        asked.seeds, how = 1, {"rank": 2, "steps": 2, "answer_length": 4, "progress": False}
        for case in prompts.values():
            case["questions"] = case["questions"][:5]
    for seed in range(asked.seeds):
        for name, case in prompts.items():
            rows.append({"prompt": name, "seed": seed, **measured(model, case, seed, **how)})
            print(json.dumps(rows[-1]), flush=True)
            if asked.seeds == SEEDS:
                write_text(RESULTS, json.dumps(rows, indent=1) + "\n")
    print(table(rows))


def measured(
    model: language.LanguageModel, case: dict[str, Any], seed: int, **how: Any
) -> dict[str, Any]:
    """Bake one prompt, and say what is left, and what it took."""
    begin = time.process_time()
    result = language.bake(model, case["prompt"], questions=case["questions"], rng=seed, **how)
    seconds = time.process_time() - begin
    means = {key: float(np.concatenate(row).mean()) for key, row in result.divergences.items()}
    bits = b"".join(leaf.data.tobytes() for _, leaf in trainable(result.model))
    return {
        **{key: round(mean, 4) for key, mean in means.items()},
        "agreement": {key: round(share, 3) for key, share in result.agreement.items()},
        "saved": result.saved,
        "CPU seconds": round(seconds),
        "memory": peak_memory(),
        "sha256": hashlib.sha256(bits).hexdigest(),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Write base, baked and the share that is left, on sampled and on greedy answers."""
    kinds = ("sampled", "greedy")
    heads = ["prompt", "seed", "tokens saved"]
    heads += [f"{kind}: {part}" for kind in kinds for part in ("base", "baked", "left")]
    cells = []
    for row in rows:
        values: list[str | int] = [row["prompt"], row["seed"], row["saved"]]
        for kind in kinds:
            base, baked = (row[f"{model}, {kind}"] for model in ("base", "baked"))
            values += [f"{base:.3f}", f"{baked:.3f}", f"{baked / base:.0%}"]
        cells.append([*values, f"{row['CPU seconds'] / 60:.1f}"])
    return Table([*heads, "CPU minutes"], cells)
