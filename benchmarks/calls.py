"""Python calls into files of lora_np for one small use of each kind, the second time it is made.

Small uses are all overhead: what they cost is how often Python enters a function of the package.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import lora_np as lnp
from lora_np import adapters
from lora_np.accounting import count_model, from_config, preset_config
from lora_np.table import Table

# The same three uses before the package was laid out anew (version 0.1.0, commit 39d576f).
BEFORE = {"fit, one step with validation": 375, "count llama-3-8b": 426, "resize one module": 442}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks calls", description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows = []
    for name, use in uses().items():
        use()
        now = calls(use)
        rows.append([name, BEFORE[name], now, now / BEFORE[name]])
    table = Table(
        ["use", "calls before", "calls now", "ratio"],
        rows,
        title="Python calls into files of lora_np (sys.setprofile), second call",
        formats={"ratio": "{:.2f}".format},
    )
    print(table.to_json() if options.json else table)


def uses() -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    W0, x = rng.standard_normal((100, 120)), rng.standard_normal((256, 120))
    y = x @ rng.standard_normal((120, 100))
    model = lnp.inject(lnp.Linear(W0), rank=8, rng=rng)
    config = preset_config("llama-3-8b")
    folder = Path(tempfile.mkdtemp())
    adapters.save(model, folder / "adapter", names=lambda path: "q_proj")
    return {
        "fit, one step with validation": lambda: lnp.fit(
            model, x, y, steps=1, validation=(x, y), progress=False
        ),
        "count llama-3-8b": lambda: count_model(from_config(config), rank=16),
        "resize one module": lambda: adapters.resize(
            folder / "adapter", folder / "resized", rank=4, force=True, progress=False
        ),
    }


def calls(use: Callable[[], Any]) -> int:
    """How many times Python enters a function whose file is one of the package's."""
    home, count = str(Path(lnp.__file__).parent), 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        if event == "call" and frame.f_code.co_filename.startswith(home):
            count += 1

    sys.setprofile(seen)
    try:
        use()
    finally:
        sys.setprofile(None)
    return count
