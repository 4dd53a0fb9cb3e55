"""Train the adapters that the package ships, each from several seeds; those of the first are written.

OPENBLAS_NUM_THREADS=1 python -m recipes.adapters -o FOLDER
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from lora_np import adapters, language
from lora_np.table import Table

STYLES: dict[str, tuple[str, dict[str, Any]]] = {  # adapter: its text and settings
    "king-james": ("genesis", {"rank": 8, "lr": 0.01, "steps": 300}),
    "devils-dictionary": ("devils-dictionary", {"rank": 16, "lr": 0.01, "steps": 450}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("styles", nargs="*", choices=STYLES, help="by default all")
    parser.add_argument("-o", "--out", type=Path, required=True, help="directory to write into")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    base, rows = language.load("austen"), []
    for style in options.styles or STYLES:
        text, settings = language.read_text(STYLES[style][0]), STYLES[style][1]
        for seed in options.seeds:
            begin = time.process_time()
            result = language.finetune(base, text, **settings, rng=seed, progress=False)
            seconds = time.process_time() - begin
            rows.append([style, seed, f"{result.before:.4f}", f"{result.after:.4f}", f"{seconds:.0f}"])
            print(*rows[-1], flush=True)
            if seed == options.seeds[0]:
                adapters.save(result.model, options.out / style, base="austen", force=True)
    print(Table(["adapter", "seed", "held-out loss before", "after (nats a character)", "CPU s"], rows))


if __name__ == "__main__":
    main()
