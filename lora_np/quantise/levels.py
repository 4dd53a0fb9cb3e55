"""Where the levels of a code come from: evenly spaced, or at the quantiles of what is to be coded."""

from __future__ import annotations

from functools import cache

import numpy as np

from lora_np.checks import Array, ArrayLike, whole_number

# The outermost quantile: half a step from the end, averaged over 15 and 16 levels, 1 - (1/30 + 1/32) / 2,
# with the digits that bitsandbytes keeps.
_NF4_END = 0.9677083


def normal_quantile(p: ArrayLike) -> Array:
    """The x below which a standard normal variable lies with probability p.

    Parameters
    ----------
    p : array_like
        Probabilities, above 0 and below 1.

    Returns
    -------
    ndarray
        float64, of the shape of p.

    Raises
    ------
    ValueError
        If a probability is not between 0 and 1.

    See Also
    --------
    nf4_levels : 16 of these quantiles, scaled to [-1, 1].

    Examples
    --------
    >>> normal_quantile([0.025, 0.5, 0.975]).round(3)
    array([-1.96,  0.  ,  1.96])
    """
    from statistics import NormalDist  # which takes a while to load

    p = np.asarray(p, np.float64)
    if not ((p > 0) & (p < 1)).all():
        raise ValueError(f"p must lie between 0 and 1, got {p[~((p > 0) & (p < 1))].flat[0]}")
    return np.asarray(np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])(p))


def uniform_levels(bits: int = 4) -> Array:
    """``-1, ..., -1/m, 0, 1/m, ..., 1`` with ``m = 2**(bits - 1) - 1``: even steps, zero included.

    Parameters
    ----------
    bits : int
        From 2 to 8. One of the ``2**bits`` codes is not used, so that zero is a level.

    Returns
    -------
    ndarray of shape (2**bits - 1,)
        float32, ascending.

    See Also
    --------
    nf4_levels : As many levels, close together where weights are.

    Examples
    --------
    >>> uniform_levels(3) * 3
    array([-3., -2., -1.,  0.,  1.,  2.,  3.], dtype=float32)
    """
    most = 2 ** (whole_number("bits", bits, minimum=2, maximum=8) - 1) - 1
    return np.arange(-most, most + 1, dtype=np.float32) / np.float32(most)


@cache
def nf4_levels() -> Array:
    """The 16 levels of NormalFloat: quantiles of the normal distribution, scaled to [-1, 1].

    Weights are close to normal. If each level is to be used equally often, levels belong at quantiles with
    equal probability between them. Zero should be a level too, so the two sides are taken apart: eight steps
    above zero, seven below.

    Returns
    -------
    ndarray of shape (16,)
        float32, ascending, read-only; to the bit the table in bitsandbytes.

    See Also
    --------
    normal_quantile : The quantiles.
    uniform_levels : Evenly spaced levels, for comparison.

    References
    ----------
    T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, "QLoRA: efficient finetuning of quantized LLMs",
    2023, arXiv 2305.14314, section 3.

    Examples
    --------
    >>> nf4_levels()[:8].round(4)
    array([-1.    , -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911,
            0.    ], dtype=float32)
    """
    above = normal_quantile(_spaced(_NF4_END, 0.5, 9)[:-1])
    below = -normal_quantile(_spaced(_NF4_END, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([below, [0.0], above])).astype(np.float32)
    return _constant(levels / levels[-1])


@cache
def dynamic_levels() -> Array:
    """256 levels for the scales of scales: seven decades, each with twice as many levels as the one below.

    Small numbers are coded with few digits but over a wide range: between ``10**(i - 7)`` and
    ``10**(i - 6)``, ``2**i`` evenly spaced levels, for i from 0 to 6; the same with a minus sign; 0; and 1.

    Returns
    -------
    ndarray of shape (256,)
        float32, ascending, read-only; to the bit what bitsandbytes' ``create_dynamic_map`` gives.

    See Also
    --------
    nf4_levels : Levels for weights.

    References
    ----------
    T. Dettmers, "8-bit approximations for parallelism in deep learning", 2015, arXiv 1511.04561.

    Examples
    --------
    >>> levels = dynamic_levels()
    >>> len(levels), int((levels > 0.1).sum()), float(levels[-1])
    (256, 65, 1.0)
    """
    positive = []
    for i in range(7):
        edges = _spaced(0.1, 1.0, 2**i + 1)
        positive.append((edges[:-1] + edges[1:]) / 2 * np.float32(10.0 ** (i - 6)))
    half = np.concatenate(positive)
    return _constant(np.sort(np.concatenate([-half, np.zeros(1, np.float32), half, np.ones(1, np.float32)])))


def _spaced(start: float, stop: float, number: int) -> Array:
    """``np.linspace`` in float32 as torch computes it, from both ends, each number rounded once."""
    first, last = np.float64(np.float32(start)), np.float64(np.float32(stop))
    step = np.float64(np.float32(last - first) / np.float32(number - 1))
    i = np.arange(number)
    return np.where(i < number // 2, first + step * i, last - step * (number - 1 - i)).astype(np.float32)


def _constant(array: Array) -> Array:
    array.setflags(write=False)
    return array
