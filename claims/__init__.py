"""Published claims about LoRA, tested in minutes: a file for each, one protocol, results as data.

Commands::

    python -m claims list
    python -m claims run NAME         write results/NAME.json
    python -m claims run --quick      quick runs, at the learning rates that the full runs found
    python -m claims run --again NAME figures anew, from the runs that are recorded
    python -m claims sweep SETUP      digits, linear or kappa: 64 seeds that draw everything anew; language: 8; or defaults
    python -m claims check            compare quick runs with what is recorded: for CI
    python -m claims reword           write words and verdicts again, from the recorded figures
"""

from __future__ import annotations

import importlib
import pkgutil

from claims.protocol import Claim

TOOLS = {
    "protocol",
    "rules",
    "at_scale",
    "setups",
    "text",
    "memorising",
    "suites",
    "methods",
    "batched",
    "redrawn",
    "longer",
    "peft_runs",
    "kept",
    "rate_law_peft",
    "rate_law_rule",
    "rate_law_runs",
    "reward_rank_rule",
    "reward_rank_runs",
    "defaults",
    "studies",
    "__main__",
}


def names() -> list[str]:
    """Every claim, by its file."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(name.replace("_", "-") for name in found if name not in TOOLS)


def claim(name: str) -> Claim:
    """The claim of a name."""
    found: Claim = importlib.import_module(f"claims.{name.replace('-', '_')}").CLAIM
    return found
