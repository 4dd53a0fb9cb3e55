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


def merged(
    place: str, W: Array, module: AdapterModule, *, transposed: bool, dtype: str
) -> tuple[Array, float, float]:
    """``W0 + scale * B A`` as a file of ``dtype`` holds it, the largest change, the largest rounding error.

    Computed in one precision above ``dtype``; ``W`` is overwritten. With DoRA each output's row is brought to
    its magnitude.
    """
    wide = np.dtype(np.float64 if dtype in ("float32", "float64") else np.float32)
    B, A = module.B.astype(wide), module.A.astype(wide)
    left, right = (A.T, B.T) if transposed else (B, A)
    left = left * left.dtype.type(module.scale)
    factor = _dora_factor(W, left, right, module, transposed)
    moved = lost = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        for rows in _blocks(W):
            exact = W[rows] + left[rows] @ right
            if factor is not None:
                exact *= factor if transposed else factor[rows, None]
            stored = rounded(exact, dtype)
            if not np.isfinite(stored).all():
                raise HubError(f"{place} is not finite when it is merged; its dtype is {dtype}")
            moved = max(moved, float(np.abs(stored - W[rows]).max()))
            lost = max(lost, float(np.abs(stored - exact).max()))
            W[rows] = stored
    return W, moved, lost


def _dora_factor(
    W: Array, left: Array, right: Array, module: AdapterModule, transposed: bool
) -> Array | None:
    """``m / ||row of W0 + scale * B A||`` for each output (arXiv 2402.09353)."""
    if module.magnitude is None:
        return None
    squares = np.zeros(module.shape[0], left.dtype)
    for rows in _blocks(W):
        block = np.square(W[rows] + left[rows] @ right)
        if transposed:
            squares += block.sum(axis=0)
        else:
            squares[rows] = block.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a row of zeros has no direction: refused later
        factor: Array = module.magnitude.astype(left.dtype) / np.sqrt(squares)
    return factor


def _blocks(W: Array) -> Iterator[slice]:
    step = max(1, BLOCK // W.shape[1])
    return (slice(start, start + step) for start in range(0, len(W), step))
