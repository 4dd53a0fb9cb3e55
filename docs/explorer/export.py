"""What the rank explorer shows, computed by the package: python docs/explorer/export.py >
explorer-data.js

Each subject is a matrix cut to the rank under the reader's hand: the page adds up the first r
products of a column and a row, and looks up the numbers that go with it. Nothing is estimated in
the browser.
"""

import json
from base64 import b64encode
from typing import Any

import numpy as np

from lora_np import accounting, datasets, linalg
from lora_np.checks import Array
from lora_np.course.guided_tour import Task, ridge_for

GAIN = 0.999  # of the full update's: there the curve of the update ends
# pixels whose weights are drawn
OUTPUTS = [10 * row + column for row in (1, 4, 8) for column in (3, 8)]


def subjects() -> list[dict[str, Any]]:
    return [picture(), update()]


def picture() -> dict[str, Any]:
    """A portrait, cut by its singular value decomposition."""
    M = portrait()
    U, s, Vh = linalg.truncated_svd(M, rank=min(M.shape))
    return subject(
        M,
        U * np.sqrt(s),
        np.sqrt(s)[:, None] * Vh,
        name="picture",
        errors=linalg.rank_errors(M, relative=True),
        limits=(0.0, 1.0),
        lowest=1,
        start=16,  # where a face can be recognised
    )


def portrait() -> Array:
    """The head on the photograph, each pixel the mean of two by two."""
    crop: Array = datasets.photograph()[20:380, 106:406].reshape(180, 2, 150, 2).mean(axis=(1, 3))
    return crop


def update() -> dict[str, Any]:
    """The best update of each rank for the tour's model, and its error on patches that it never
    saw.
    """
    task = Task(rng=0, quick=False)
    B, A = linalg.reduced_rank_regression(task.x, task.y, W0=task.base.W, ridge=ridge_for(task.x))
    scale = np.linalg.norm(A, axis=1)  # shared evenly, so that both factors survive rounding
    left, right = B * np.sqrt(scale), A / np.sqrt(scale)[:, None]
    largest = float(np.quantile(np.abs(B @ A), 0.99))
    ranks = update_ranks(task.best_errors)
    return subject(
        B @ A,
        left[:, :ranks],
        right[:ranks],
        name="update",
        errors=task.best_errors[: ranks + 1],
        full_error=float(task.best_errors[-1]),
        limits=(-largest, largest),
        lowest=0,
        start=8,
        outputs=OUTPUTS,
        whole=whole_numbers((B @ A)[OUTPUTS]),
    )


def update_ranks(errors: Array) -> int:
    """The first rank with nearly all of the gain that the full update has."""
    gain = (errors[0] - errors) / (errors[0] - errors[-1])
    return int(np.argmax(gain >= GAIN))


def subject(
    M: Array, left: Array, right: Array, *, errors: Array, limits: tuple[float, float], **rest: Any
) -> dict[str, Any]:
    d, k = M.shape
    return {
        **rest,
        "d": d,
        "k": k,
        "ranks": left.shape[1],
        "left": whole_numbers(left.T),  # one column after the other: the page adds column by column
        "right": whole_numbers(right),
        "limits": limits,
        "errors": [float(f"{error:.6g}") for error in errors],
        "full": accounting.count_full(d, k),
        "counts": [0, *(accounting.count_lora(d, k, rank=r) for r in range(1, left.shape[1] + 1))],
        "breakEven": accounting.break_even_rank(d, k),
    }


def whole_numbers(rows: Array) -> dict[str, Any]:
    """Rows as 16-bit integers in base64, with a scale for each row: half the bytes of single
    precision.
    """
    scales = np.abs(rows).max(axis=1) / 32767
    numbers = np.rint(rows / scales[:, None]).astype("<i2")
    return {
        "scales": [float(f"{scale:.8g}") for scale in scales],
        "numbers": b64encode(numbers.tobytes()).decode("ascii"),
    }


def script() -> str:
    """A script, not JSON, so that the page works from a folder as well as from a server."""
    return f"window.rankExplorer = {json.dumps(subjects())};\n"


if __name__ == "__main__":
    print(script())
