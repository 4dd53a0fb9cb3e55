"""What a setup allows: the best that any of its methods achieves, from the recorded sweeps.

A claim says of some of its figures which method's loss is to be beaten (``beats``). The reach of such
a figure is what the best of all methods of the setup makes of it, the full update included, each at
its best learning rate. If even that falls short of the smallest effect worth having, the setup cannot
tell, and the claim needs scale. ``data/reach.json`` holds them, by ``python -m claims reach``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from claims.lab import at_scale, redrawn, text
from lora_np.files import write_whole

if TYPE_CHECKING:
    from claims.lab.protocol import AtScale
    from claims.lab.trial import Trial

FILE = Path(__file__).parents[1] / "data" / "reach.json"
Best = dict[str, Any]  # what is achieved, and by which method


def small(claim: Trial) -> dict[str, Best]:
    """The reach of each figure that a claim names, in its first setup."""
    return {
        name: best_of_all(*beaten, ratio=name in claim.ratios)
        for name, beaten in claim.beats.items()
    }


def best_of_all(setup: str, beaten: str, of: str = "", *, ratio: bool = True) -> Best:
    """How far the best of the methods that train as long on the same task is ahead of one method."""
    sweeps = redrawn.sweeps(setup)
    theirs = sweeps[beaten]
    found = {}
    for name, ours in sweeps.items():
        looks = of not in text.LOOKED or ours.method.get("look")
        if ours.setup != theirs.setup or not looks:
            continue
        seeds = range(min(ours.seeds, theirs.seeds))
        both = theirs.values(seeds, of), ours.values(seeds, of)
        if of in text.LOOKED:  # a count, of which more is asked
            found[name] = float(np.exp(np.mean(np.log(both[1]) - np.log(both[0]))))
        elif ratio:
            found[name] = float(np.exp(np.mean(both[0] - both[1])))
        else:
            found[name] = float(np.mean(np.exp(both[0]) - np.exp(both[1])))
    return largest(found)


def larger(scale: AtScale) -> dict[str, Best]:
    """The reach of each figure at 135 million parameters."""
    runs, found = at_scale.Runs(), {}
    for name, (beaten, *_) in scale.beats.items():
        ratios = {other: runs.over(beaten, other) for other in at_scale.METHODS}
        found[name] = largest(
            {
                other: float(np.exp(np.mean(np.log(some))))
                for other, some in ratios.items()
                if len(some)
            }
        )
    return found


def largest(found: Mapping[str, float]) -> Best:
    name = max(found, key=found.__getitem__)
    return {"best": float(f"{found[name]:.5g}"), "method": name}


@functools.cache
def recorded() -> dict[str, dict[str, dict[str, Best]]]:
    """The file: by claim, then *small* and *at scale*, then figure."""
    known: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return known


def of(name: str, scale: str) -> dict[str, float]:
    """The best value of each figure of a claim."""
    return {key: best["best"] for key, best in recorded().get(name, {}).get(scale, {}).items()}


def measured(claims: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Best]]]:
    """The reach of every claim, from the recorded sweeps."""
    found = {}
    for name, claim in claims.items():
        both = {"small": small(claim)}
        if claim.at_scale is not None:
            both["at scale"] = larger(claim.at_scale)
        if both := {scale: some for scale, some in both.items() if some}:
            found[name] = both
    return found


def record(claims: Mapping[str, Any]) -> None:
    """Write the file."""
    content = json.dumps(measured(claims), indent=1, ensure_ascii=False) + "\n"
    write_whole(FILE, lambda file: file.write(content.encode()))
    recorded.cache_clear()
