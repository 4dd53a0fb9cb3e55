"""What papers say about LoRA, tried in minutes: one file for each claim, one protocol, results as
data.

Commands::

    python -m claims list
    python -m claims run NAME         write results/NAME.json
    python -m claims run --quick      all of them in small, at the rates that the full runs found
    python -m claims check            in small, against what is recorded: for CI
    python -m claims reword           words and verdicts anew, from the recorded figures
"""

from __future__ import annotations

import importlib
import pkgutil

from claims.protocol import Claim

TOOLS = {"protocol", "beds", "by_heart", "suites", "ways", "__main__"}


def names() -> list[str]:
    """Every claim, by its file."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(name.replace("_", "-") for name in found if name not in TOOLS)


def claim(name: str) -> Claim:
    """The claim of a name."""
    found: Claim = importlib.import_module(f"claims.{name.replace('-', '_')}").CLAIM
    return found
