"""What a first use costs over ``import numpy``: CPU time of processes, and what should stay out."""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks._measure import versions
from lora_np.table import Cell, Table

NAMES = ("count_lora", "Tensor", "Linear", "inject", "fit", "adapters.load")
USES = {
    "import numpy": "import numpy",
    "import lora_np": "import numpy, lora_np",
    **{name: f"import numpy, lora_np; lora_np.{name}" for name in NAMES},
    "lora-np count llama-3-8b": (
        "import sys; sys.argv[1:] = ['count', 'llama-3-8b']\n"
        "from lora_np.__main__ import main; main()"
    ),
}
# The CPU time and the heavy modules of a process, told on stderr when it ends.
REPORT = """
import atexit, time
def report(modules=__import__("sys").modules):
    heavy = [m for m in ("matplotlib", "click", "tqdm", "joblib") if m in modules]
    print(time.process_time(), *heavy, file=__import__("sys").stderr)
atexit.register(report)
"""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks import", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = 1
    else:
        for code in USES.values():
            told(code)  # the first writes the bytecode
    rounds = [{use: told(code) for use, code in USES.items()} for _ in range(options.rounds)]
    bare = min(float(told("pass")[0]) for _ in range(options.rounds))
    # the least of many: other work on the machine only adds
    least = {use: min(float(each[use][0]) for each in rounds) for use in USES}
    numpy = least["import numpy"] - bare
    rows: list[list[Cell]] = [
        [use, 1e3 * cpu, (cpu - least["import numpy"]) / numpy, ", ".join(rounds[0][use][1:])]
        for use, cpu in least.items()
    ]
    table = Table(
        ["first use", "ms", "over numpy's", "came along"],
        rows,
        title=f"CPU time of a process, least of {options.rounds}",
        notes=[
            (
                "over numpy's: what is added to a process with numpy, over that import,"
                f" {1e3 * numpy:.0f} ms"
            ),
            versions("numpy"),
        ],
        formats={"ms": "{:.1f}".format, "over numpy's": "{:.2f}".format},
    )
    print(table.to_json() if options.json else table)


def told(code: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", REPORT + code], capture_output=True, text=True, check=True
    )
    return run.stderr.split()
