"""What a module does to its base weight, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lora_np.adapters.peft_format import AdapterModule
from lora_np.checks import Array
from lora_np.hub import HubError, rounded

BLOCK = 2**20  # entries that are worked on at a time, so that no second weight's worth is needed


def is_transposed(place: str, shape: tuple[int, ...], module: AdapterModule, fan_in_fan_out: bool) -> bool:
    """Whether a base weight of this shape is stored as (k, d): embeddings are, and GPT-2's Conv1D."""
    d, k = module.shape
    # A config may say fan_in_fan_out for some of its layers only, so the shape decides where it can.
    transposed = module.embedding or (fan_in_fan_out and shape == (k, d))
    if shape != ((k, d) if transposed else (d, k)):
        hint = "; it is stored transposed, which needs fan_in_fan_out" if shape == (k, d) else ""
        raise HubError(f"{place} of shape {shape} does not fit an update of shape {(d, k)}{hint}")
    return transposed


def merged(place: str, W: Array, module: AdapterModule, *, dtype: str) -> tuple[float, float]:
    """Make ``W``, outputs by inputs, ``W0 + scale * B A`` as a file of ``dtype`` holds it.

    Computed in one precision above ``dtype``. With DoRA each output's row is brought to its magnitude.
    Returns the largest change and the largest rounding error.
    """
    wide = np.dtype(np.float64 if dtype in ("float32", "float64") else np.float32)
    B, A = module.B.astype(wide) * wide.type(module.scale), module.A.astype(wide)
    magnitude, moved, lost = module.magnitude, 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is refused below
        for rows in _blocks(W):
            exact = W[rows] + B[rows] @ A
            if magnitude is not None:  # arXiv 2402.09353; a row of zeros has no direction
                exact *= (magnitude[rows] / np.linalg.norm(exact, axis=1))[:, None]
            stored = rounded(exact, dtype)
            if not np.isfinite(stored).all():
                raise HubError(f"{place} is not finite when it is merged; its dtype is {dtype}")
            moved = max(moved, float(np.abs(stored - W[rows]).max()))
            lost = max(lost, float(np.abs(stored - exact).max()))
            W[rows] = stored
    return moved, lost


def _blocks(W: Array) -> Iterator[slice]:
    step = max(1, BLOCK // W.shape[1])
    return (slice(start, start + step) for start in range(0, len(W), step))
