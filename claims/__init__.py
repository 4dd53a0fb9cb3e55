"""Published claims about LoRA, tested in minutes: a file for each, one protocol, results as data.

Each module here is a claim, except the two studies, whose rule was committed before their runs. What
they share is in `claims.lab`.

Commands::

    python -m claims list
    python -m claims run NAME         train it with seeds of your own, into a folder of your own
    python -m claims run STUDY --quick   the subset of a study that its file names, in memory
    python -m claims show NAME        figures and verdict, from the runs that are recorded
    python -m claims record NAME      write results/NAME.json: train what is not recorded
    python -m claims record --quick   quick runs, at the learning rates that the full runs found
    python -m claims record --again   figures anew, from the runs that are recorded
    python -m claims reach            what the best of all methods achieves in each setup
    python -m claims tasks            data/tasks.json: each part of a claim on two more tasks of digits
    python -m claims untrained        data/untrained.json: the loss of the untrained model in each setup
    python -m claims sweep SETUP      digits (digits-names, digits-near: two more tasks), linear or kappa: 64 seeds that draw everything anew; language: 8; or defaults
    python -m claims check            compare quick runs with what is recorded: for CI
    python -m claims reword           write words and verdicts again, from the recorded figures
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from claims.lab import reach, refutations
from claims.lab.committed import Card
from claims.lab.protocol import Claim
from lora_np import course

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Name every claim, which is every module here that belongs to no study."""
    others = ("--", *(f"{study}-" for study in studies()))
    stems = (path.stem.replace("_", "-") for path in FOLDER.glob("*.py"))
    return sorted(stem for stem in stems if not stem.startswith(others))


def claim(name: str) -> Claim:
    """The claim of a name, with what would contradict it and what its setups allow."""
    found: Claim = importlib.import_module(f"claims.{name.replace('-', '_')}").CLAIM
    rule = lambda trial, scale: replace(
        trial.rule, refuted=refutations.current(name, scale), reach=reach.of(name, scale)
    )
    large = found.at_scale
    if large is not None:
        large = replace(large, rule=rule(large, "at scale"))
    return replace(found, rule=rule(found, "small"), at_scale=large)


def studies() -> list[str]:
    """Name every study, by the file with its runs."""
    stems = (path.stem for path in FOLDER.glob("*_runs.py"))
    return sorted(stem.removesuffix("_runs").replace("_", "-") for stem in stems)


def study(name: str) -> Card:
    """Return what a study says of itself."""
    found: Card = importlib.import_module(f"claims.{name.replace('-', '_')}_runs").STUDY
    return found


def records() -> dict[str, dict[str, Any]]:
    """What is recorded of every claim; studies (`claims.lab.committed`) are left out."""
    return {name: one for name, one in course.claims().items() if "study" not in one}


def study_records() -> dict[str, dict[str, Any]]:
    """What is recorded of every study whose rule was committed before its runs."""
    return {name: one for name, one in course.claims().items() if "study" in one}
