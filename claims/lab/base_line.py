"""The base line: the loss of the untrained model in every setup that a claim trains in.

Without it nobody can say how much a method has learnt, or whether anything was forgotten.
``data/untrained.json`` holds it by claim, by ``python -m claims untrained``: where each seed draws
everything, over all recorded seeds (`claims.lab.redrawn.untrained`), elsewhere over five.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from claims.lab import at_scale, redrawn
from claims.lab.batched import HALVES
from claims.lab.protocol import Claim, Lab
from claims.lab.rules import Figure
from lora_np.checks import Array
from lora_np.files import write_whole

FILE = Path(__file__).parents[1] / "data" / "untrained.json"
STEPS, NOTHING = 4, 1e-30  # so few steps, at a rate that changes no weight
UNITS = {"linear": "share of ||D||^2", "descent": "share of ||D||^2"}  # of others, nats
LARGE = "135M"


def setups(claim: Claim, recorded: Mapping[str, Any]) -> dict[str, Array]:
    """The untrained losses of each setup of a claim, of every seed, by the setup's name."""
    names = [name.split(": ")[0] for name in recorded.get("methods", {})]
    found = {}
    for setup in dict.fromkeys(name for name in names if name in redrawn.METHODS):
        sweep = next(iter(redrawn.sweeps(setup).values()))
        found[setup] = redrawn.untrained(sweep, range(sweep.seeds))
        if setup == "language":
            found["language, old text"] = redrawn.untrained(sweep, range(sweep.seeds), "old")
    if not {*names} <= {*redrawn.METHODS}:
        found |= others(claim, recorded)
    return found | (large() if claim.at_scale is not None else {})


def others(claim: Claim, recorded: Mapping[str, Any]) -> dict[str, Array]:
    """Of setups whose runs are one by one: a run that changes nothing."""
    lab = Lab(recorded=recorded, again=True)
    claim.measure(lab)
    found = {}
    for sweep in lab.sweeps.values():
        if isinstance(sweep, redrawn.Redrawn):
            continue
        setup = sweep.setup
        if hasattr(setup, "steps") and type(setup).__name__ not in found:
            still = replace(setup, steps=STEPS)
            runs = [still.run(NOTHING, seed, **sweep.method) for seed in lab.seeds]
            found[type(setup).__name__] = np.array([run["test"] for run in runs])
    return found


@functools.cache
def large() -> dict[str, Array]:
    """Of SmolLM2: on the new text, the mean of both pieces held back, and on the old text."""
    runs, seeds = at_scale.Runs(), range(at_scale.SEEDS)
    new = np.mean([runs.untrained(half, seeds) for half in HALVES], axis=0)
    return {LARGE: np.exp(new), f"{LARGE}, old text": np.exp(runs.untrained("old", seeds))}


def record(claims: Mapping[str, Claim], results: Mapping[str, Any]) -> None:
    """Write the file."""
    known = {name: setups(claim, results[name]) for name, claim in claims.items()}
    found = {
        name: {setup: numbers(setup, losses) for setup, losses in some.items()}
        for name, some in known.items()
        if some
    }
    text = json.dumps(found, indent=1) + "\n"
    write_whole(FILE, lambda file: file.write(text.encode()))
    recorded.cache_clear()


def numbers(setup: str, losses: Array) -> dict[str, Any]:
    """A mean with its interval, as JSON."""
    figure = Figure(tuple(map(float, losses)))
    found = {"mean": figure.mean, "low": figure.low, "high": figure.high}
    unit = UNITS.get(setup, "share of ||D||^2" if setup == "Linear" else "nats")
    return {name: float(f"{x:.4g}") for name, x in found.items()} | {
        "seeds": len(losses),
        "unit": unit,
    }


@functools.cache
def recorded() -> dict[str, dict[str, dict[str, Any]]]:
    """The file: by claim, then setup."""
    known: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return known
