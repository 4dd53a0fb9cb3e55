"""Steps until the loss is within 1e-3 and 1e-6 of the optimum of its rank, for each optimizer."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import lora_np as lnp
from benchmarks._measure import versions
from benchmarks.alternating import alternating_least_squares
from benchmarks.scaled_descent import precondition
from lora_np.checks import Array
from lora_np.lora import lora_plus
from lora_np.table import Cell, Table
from lora_np.training import optimum

D, K, ROWS = 100, 120, 256
LEVELS = (1e-3, 1e-6)
LONGEST = 3000
SCALED = "scaled gradient descent"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks convergence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed, a few steps")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    longest, seeds = (30, 1) if options.quick else (LONGEST, options.seeds)
    rows: list[list[Cell]] = []
    for rank in (8, 20):
        for name, run in contenders(longest).items():
            reached = [steps_to(run, rank, rng) for rng in range(seeds)]
            rows.append(
                [rank, name, *(middle([steps[i] for steps in reached]) for i in range(len(LEVELS)))]
            )
    table = Table(
        ["rank", "optimizer", "steps to 1e-3", "steps to 1e-6"],
        rows,
        title=(
            "Steps until loss / optimum - 1 is small enough: median of "
            f"{seeds} seeds, {D} x {K}, full batch"
        ),
        notes=[
            (
                "white inputs, an update with the singular values of noise (the largest is 1),"
                " Kaiming A, B = 0, alpha = r, float64, constant rates"
            ),
            (
                "the rates of scaled gradient descent are the best of a few tried on seeds 0 to 2"
                " (four without momentum, six with); those of the others were not tuned"
            ),
            f"empty: not within {longest:,} steps. Alternating least squares counts half-steps.",
            versions("numpy"),
        ],
    )
    print(table.to_json() if options.json else table)


def contenders(longest: int) -> dict[str, Callable[[Any, Array, Array, float], Any]]:
    descents: dict[str, Any] = {
        "Adam, 1e-2": lnp.Adam(lr=1e-2),
        "AdamW, 1e-2, decay 1e-4": lnp.AdamW(lr=1e-2, weight_decay=1e-4),
        "LoRA+, Adam 3e-3, ratio 4": lora_plus(lnp.Adam(lr=3e-3), ratio=4),
        "SGD, momentum 0.9": lnp.SGD(lr=0.1 * D, momentum=0.9),
        "SGD": lnp.SGD(lr=0.5 * D),
        # With white inputs the curvature in B A is 2 / d: at d / 2 the step of each factor is
        # Newton's.
        SCALED: lnp.SGD(lr=0.5 * D),
        f"{SCALED}, momentum 0.9": lnp.SGD(lr=0.2 * D, momentum=0.9),
    }

    def descend(name: str, optimizer: Any) -> Callable[..., Any]:
        watch = precondition if name.startswith(SCALED) else None
        return lambda model, x, y, goal: lnp.fit(
            model, x, y, optimizer=optimizer, steps=longest, goal=goal, watch=watch, progress=False
        )

    return {name: descend(name, optimizer) for name, optimizer in descents.items()} | {
        "alternating least squares": lambda model, x, y, goal: alternating_least_squares(
            model, x, y, half_steps=longest, goal=goal
        )
    }  # fmt: skip


def steps_to(run: Callable[..., Any], rank: int, rng: Any) -> list[int | None]:
    rng = np.random.default_rng(rng)
    x = np.linalg.qr(rng.standard_normal((ROWS, K)))[0] * np.sqrt(ROWS)  # x^T x / n = I
    change = rng.standard_normal((D, K))
    W0 = rng.standard_normal((D, K)) / np.sqrt(K)
    y = x @ (W0 + change / np.linalg.norm(change, 2)).T
    model = lnp.inject(lnp.Linear(W0), rank=rank, alpha=rank, rng=rng)
    best = optimum(model, x, y)
    gap = run(model, x, y, (1 + LEVELS[-1]) * best).history.loss / best - 1
    return [int(np.argmax(gap <= level)) if (gap <= level).any() else None for level in LEVELS]


def middle(steps: list[int | None]) -> int | None:
    result = median(np.inf if s is None else s for s in steps)
    return None if np.isinf(result) else int(result)
