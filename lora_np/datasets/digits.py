"""Handwritten digits, eight pixels high: small enough to learn from in a second, real enough to be hard."""

from __future__ import annotations

import numpy as np

from lora_np.checks import Array
from lora_np.datasets.images import load


def digits() -> tuple[Array, Array]:
    """1,797 handwritten digits of 13 people, and which digits they are.

    Returns
    -------
    images : ndarray of shape (1797, 8, 8)
        From 0 (paper) to 1 (ink).
    labels : ndarray of int, shape (1797,)

    References
    ----------
    E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository,
    1998, https://doi.org/10.24432/C50P49 (CC BY 4.0); see ``LICENSE.md`` beside the data.

    Examples
    --------
    >>> images, labels = digits()
    >>> images.shape, labels[:5]
    ((1797, 8, 8), array([0, 1, 2, 3, 4]))
    """
    images: Array = load("digits.npz", "images") / 16
    return images, load("digits.npz", "labels").astype(np.intp)
