"""What a module does to its base weight, a block of rows at a time."""

from __future__ import annotations

import numpy as np

from lora_np.adapters.module import AdapterModule
from lora_np.checks import Array
from lora_np.hub import HubError, rounded

BLOCK = 2**20  # entries that are worked on at a time, so that no second weight's worth is needed


def oriented(place: str, W: Array, module: AdapterModule, *, transposed: bool) -> Array:
    """A base weight seen as the module's maps, outputs by inputs: (d, k) or a stack of those.

    Embeddings are stored as (k, d). Where ``transposed`` says that others may be too (GPT-2's Conv1D, the
    experts of gpt-oss), the shape decides where it can: a config says it of all layers, and means some.
    """
    if module.kernel and module.groups > 1:
        raise HubError(
            f"{place}: a convolution in {module.groups} groups takes each group's inputs alone, while PEFT's "
            "update takes all of them: that cannot be merged"
        )
    shape = module.shape
    swapped = shape if module.kernel else (*shape[:-2], shape[-1], shape[-2])
    transposed = module.embedding or (transposed and W.shape == swapped)
    if W.shape != (swapped if transposed else shape) and W.shape != (1, *shape):
        hint = "; it is stored transposed, which needs fan_in_fan_out" if W.shape == swapped else ""
        raise HubError(f"{place} of shape {W.shape} does not fit an update of shape {shape}{hint}")
    maps = W.reshape(len(W), -1) if module.kernel else W.reshape(W.shape[-len(shape) :])
    return maps.swapaxes(-1, -2) if transposed else maps


def merged(place: str, W: Array, module: AdapterModule, *, dtype: str) -> tuple[float, float]:
    """Make ``W``, as `oriented` gives it, ``W0 + scale * B A`` as a file of ``dtype`` holds it.

    Computed in one precision above ``dtype``. With DoRA each output's row is brought to its magnitude.
    Returns the largest change and the largest rounding error.
    """
    wide = np.dtype(np.float64 if dtype in ("float32", "float64") else np.float32)
    B, A = module.B.astype(wide) * wide.type(module.scale), module.A.astype(wide)
    magnitude, moved, lost = module.magnitude, 0.0, 0.0
    step = max(1, BLOCK // W.shape[-1])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is refused below
        for index in np.ndindex(W.shape[:-2]):
            for start in range(0, W.shape[-2], step):
                rows = (*index, slice(start, start + step))
                exact = W[rows] + B[rows] @ A[index]
                if magnitude is not None:  # arXiv 2402.09353; a row of zeros has no direction
                    exact *= (magnitude[rows] / np.linalg.norm(exact, axis=1))[:, None]
                stored = rounded(exact, dtype)
                if not np.isfinite(stored).all():
                    raise HubError(f"{place} is not finite when it is merged; its dtype is {dtype}")
                moved = max(moved, float(np.abs(stored - W[rows]).max()))
                lost = max(lost, float(np.abs(stored - exact).max()))
                W[rows] = stored
    return moved, lost
