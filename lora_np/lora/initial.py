"""How A starts. B always starts at zero, so that training begins exactly at the base model."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array, generator


def kaiming(rng: np.random.Generator | int, r: int, k: int) -> Array:
    """Uniform in ``[-1/sqrt(k), 1/sqrt(k)]``: Kaiming at ``a = sqrt(5)``, the default of loralib and PEFT.

    Parameters
    ----------
    rng : Generator or int
        Randomness.
    r, k : int
        The shape of A.

    Returns
    -------
    ndarray
        A of shape (r, k).

    References
    ----------
    He et al., "Delving deep into rectifiers", arXiv 1502.01852.

    Examples
    --------
    >>> A = kaiming(np.random.default_rng(0), 8, 100)
    >>> A.shape, bool(np.abs(A).max() <= 0.1)
    ((8, 100), True)
    """
    bound = k**-0.5
    return generator(rng).uniform(-bound, bound, (r, k))


def gaussian(rng: np.random.Generator | int, r: int, k: int) -> Array:
    """Normal with standard deviation ``1/r``: PEFT's ``init_lora_weights="gaussian"``.

    The LoRA paper (section 4.1) says "random Gaussian" and leaves the width open.

    Parameters
    ----------
    rng : Generator or int
        Randomness.
    r, k : int
        The shape of A.

    Returns
    -------
    ndarray
        A of shape (r, k).

    Examples
    --------
    >>> gaussian(np.random.default_rng(0), 8, 100).shape
    (8, 100)
    """
    return generator(rng).normal(scale=1 / r, size=(r, k))
