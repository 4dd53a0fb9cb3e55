"""Train the adapters that the package ships, each from several seeds; those of the first are
written.

    OPENBLAS_NUM_THREADS=1 python -m recipes.adapters -o FOLDER
    python -m recipes.adapters --ranks

The second is for the card: what lower ranks leave of those that are shipped, as loss and as text.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lora_np import adapters, language
from lora_np.table import Table
from recipes import samples
from recipes.pages import markdown

STYLES: dict[str, tuple[str, dict[str, Any]]] = {  # adapter: its text and settings
    "king-james": ("genesis", {"rank": 8, "alpha": 16, "lr": 0.01, "steps": 300}),
    "devils-dictionary": ("devils-dictionary", {"rank": 16, "alpha": 32, "lr": 0.01, "steps": 450}),
}


RANKS, BEGIN = (1, 2, 4, 8, 16), {"king-james": "And the ", "devils-dictionary": "LOVE, n."}


def what_ranks_leave(style: str) -> Table:
    """The held-out loss of a shipped adapter at lower ranks, and what it then writes."""
    base, adapter = language.load("austen"), adapters.load(language.located_adapter(style))
    text = language.read_text(STYLES[style][0])
    rows: list[list[Any]] = []
    for rank in (0, *(r for r in RANKS if r <= STYLES[style][1]["rank"])):
        speaker = base
        if rank:
            with tempfile.TemporaryDirectory() as folder:
                adapters.resize(adapter, f"{folder}/small", rank=rank)
                speaker = adapters.attach(base, f"{folder}/small")
        loss = language.likelihood(speaker, text[len(text) * 9 // 10 :]).loss
        said = language.generate(
            speaker, BEGIN[style], tokens=100, temperature=samples.STYLES[style].temperature, rng=0
        )
        rows.append([rank or "none", f"{loss:.3f}", " ".join(said.split())])
    return Table(["rank", "held-out loss", "text"], rows, title=style)


def main() -> None:
    if sys.argv[1:] == ["--ranks"]:
        for style in STYLES:
            print(markdown(what_ranks_leave(style)), end="\n\n")
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
            rows.append(
                [style, seed, f"{result.before:.4f}", f"{result.after:.4f}", f"{seconds:.0f}"]
            )
            print(*rows[-1], flush=True)
            if seed == options.seeds[0]:
                adapters.save(result.model, options.out / style, base="austen", force=True)
    print(
        Table(
            ["adapter", "seed", "held-out loss before", "after (nats a character)", "CPU s"], rows
        )
    )


if __name__ == "__main__":
    main()
