"""One function for every kind of quantisation."""

from __future__ import annotations

import numpy as np

from lora_np.checks import ArrayLike, choice, matrix, whole_number
from lora_np.quantise.blocks import LAYOUTS, encoded
from lora_np.quantise.scaled import FOUR_BIT_LEVELS, four_bit, int8
from lora_np.quantise.weight import Quantised

KINDS = ("int8", "int4", "nf4", *(kind for kind in LAYOUTS if LAYOUTS[kind].encode and kind != "F32"))


def quantise(W: ArrayLike, kind: str, *, block: int = 64, double: bool = False) -> Quantised:
    """W in few bits: each number becomes the nearest of a few levels, times the scale of its block.

    Parameters
    ----------
    W : array_like of shape (d, k)
        Converted to float32.
    kind : str
        One of `KINDS`:

        - "int8": 255 even levels, one scale for each row (as bitsandbytes);
        - "int4": 15 even levels, blocks of the flattened matrix;
        - "nf4": 16 levels at quantiles of the normal distribution, the same blocks (as bitsandbytes);
        - "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0": blocks of 32 in each row (as GGUF), with a scale, or a scale
          and a least value;
        - "TQ1_0", "TQ2_0", "MXFP4": blocks of 256, with the numbers -1, 0 and 1 and a scale, and of 32, with
          floats of four bits and a power of two (as GGUF);
        - "F16", "BF16": rounded, without scales.
    block : int
        For int4 and nf4, how many numbers share a scale.
    double : bool
        For int4 and nf4, quantise the scales too.

    Returns
    -------
    Quantised
        With ``dequantised()``, ``error(W)``, ``nbytes`` and ``bits``.

    Raises
    ------
    ValueError
        If W is not a finite matrix, is too large for float32 or for the scales, or its rows are not whole
        blocks; or the kind is not known, or takes no options.
    TypeError
        If W does not hold real numbers.

    Notes
    -----
    With even levels the error of a number is at most half a step: ``scale / 254`` for int8, ``scale / 14``
    for int4. Smaller blocks have smaller scales, but cost more bits: 32 / 64 = 0.5 a number in blocks
    of 64, or 0.127 with double quantisation.

    References
    ----------
    T. Dettmers, M. Lewis, Y. Belkada, L. Zettlemoyer, "LLM.int8()", 2022, arXiv 2208.07339.
    T. Dettmers, A. Pagnoni, A. Holtzman, L. Zettlemoyer, "QLoRA", 2023, arXiv 2305.14314.

    Examples
    --------
    >>> W = np.random.default_rng(0).normal(size=(64, 64))
    >>> for kind in ("int8", "nf4", "int4"):
    ...     Q = quantise(W, kind)
    ...     print(f"{kind}: {Q.bits:.1f} bits, relative error {Q.error(W, relative=True):.3f}")
    int8: 8.5 bits, relative error 0.006
    nf4: 4.5 bits, relative error 0.092
    int4: 4.5 bits, relative error 0.106
    """
    choice("kind", kind, KINDS)
    W = matrix("W", W)
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(W, np.float32)
    if not np.isfinite(single).all():
        raise ValueError(f"W must fit float32, got {W[~np.isfinite(single)][0]:g}")
    if kind in FOUR_BIT_LEVELS:
        return four_bit(single, kind, block=whole_number("block", block, minimum=2), double=double)
    if block != 64 or double:
        raise ValueError(f"block and double are for {' and '.join(FOUR_BIT_LEVELS)}, not for {kind}")
    return int8(single) if kind == "int8" else encoded(single, kind)
