"""What ``import lora_np`` adds to ``import numpy``: time, and modules that should stay out."""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median

from benchmarks._measure import versions
from lora_np.table import Table

SCRIPT = """
import sys, time
a = time.perf_counter()
import numpy
b = time.perf_counter()
import lora_np
c = time.perf_counter()
lora_np.fit, lora_np.inject, lora_np.Tensor
d = time.perf_counter()
heavy = [m for m in ("matplotlib", "click", "tqdm", "joblib", "rich") if m in sys.modules]
print(b - a, c - b, d - c, *heavy)
"""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks import", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    runs = [started() for _ in range(options.rounds + 1)][1:]  # the first writes the bytecode
    times = [[1e3 * float(number) for number in run[:3]] for run in runs]
    names = ("import numpy", "import lora_np, after numpy", "first use of fit, inject and Tensor")
    rows = [
        [name, median(t[i] for t in times), median(t[i] / t[0] for t in times)]
        for i, name in enumerate(names)
    ]
    table = Table(
        ["what", "ms", "of numpy's"],
        rows,
        title=f"Time to import, median of {options.rounds} new processes",
        notes=[f"heavy modules that came along: {', '.join(runs[0][3:]) or 'none'}", versions("numpy")],
        formats={"ms": "{:.1f}".format, "of numpy's": "{:.1%}".format},
    )
    print(table.to_json() if options.json else table)


def started() -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stdout.split()  # fmt: skip
