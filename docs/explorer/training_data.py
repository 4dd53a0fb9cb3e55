"""The task of the live training, from the package: python docs/explorer/training_data.py >
training-data.js

A map from 24 inputs to 20 outputs is to change by four directions of decreasing strength; the
outputs are measured with noise. Reduced-rank regression knows the optimum of each rank, and
training has to find it.
"""

import json
from typing import Any

import numpy as np

from lora_np import linalg
from lora_np.checks import Array

D, K, ROWS, RANKS = 20, 24, 120, 8
STRENGTHS = (3.0, 2.0, 1.2, 0.6)


def task() -> dict[str, Array]:
    """Inputs, what is missing after W0, their moments, the starting factors, and the best loss of
    each rank from 0.
    """
    rng = np.random.default_rng(4)
    x = rng.normal(size=(ROWS, K))
    U, _ = np.linalg.qr(rng.normal(size=(D, len(STRENGTHS))))
    V, _ = np.linalg.qr(rng.normal(size=(K, len(STRENGTHS))))
    y = x @ (U * STRENGTHS @ V.T).T + 0.3 * rng.normal(size=(ROWS, D))
    x, y = (a.round(4) for a in (x, y))
    bound = 1 / np.sqrt(K)  # PEFT's start
    best = [np.mean(y**2)]
    for rank in range(1, min(D, K) + 1):
        B, A = linalg.reduced_rank_regression(x, y, rank=rank)
        best.append(np.mean((x @ (B @ A).T - y) ** 2))
    whole = linalg.reduced_rank_regression(x, y)
    left, right = linalg.reduced_rank_regression(
        x, y, rank=RANKS
    )  # its first r products are the best of rank r
    return {
        "x": x,
        "y": y,
        "C": x.T @ x / ROWS,
        "G": y.T @ x / ROWS,
        "power": np.mean(np.sum(y**2, axis=1)),
        "A": rng.uniform(-bound, bound, size=(RANKS, K)).round(4),
        "B": rng.uniform(-bound, bound, size=(D, RANKS)).round(4),
        "left": left.round(5),
        "right": right.round(5),
        "best": np.array(best).round(9),
        "values": np.linalg.svd(whole[0] @ whole[1], compute_uv=False).round(6),
    }


def script() -> str:
    found = task()
    content: dict[str, Any] = {name: found[name].tolist() for name in found if name not in "xy"}
    return f"window.loraTask = {json.dumps(content, separators=(',', ':'))};\n"


if __name__ == "__main__":
    print(script(), end="")
