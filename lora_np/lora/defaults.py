"""Alpha and the learning rate where none is given, by the project's own data."""

from __future__ import annotations

import math
from typing import Any

from lora_np.lora.layers import LowRank
from lora_np.lora.variants import VARIANTS
from lora_np.nn import walk

ALPHA = 32.0


def learning_rate(model: Any, variant: str = "lora") -> float:
    """Choose a peak learning rate for Adam: ``5 / (width max(sqrt(alpha), alpha / 12))``.

    If only one layer has a LoRA, it is 2.5 times as much.

    Parameters
    ----------
    model : tree
        An adapted model. Its width is min(d, k) of its widest layer with a LoRA, but at least 64;
        its alpha is the largest, but at least 1.
    variant : str
        The row of `VARIANTS` whose optimizer it is for: LoRA+ with ratio x takes a rate smaller
        by the root of x, since it is LoRA with x times alpha.

    Returns
    -------
    float
        With two digits; 0.01 for a model without a LoRA.

    Notes
    -----
    With alpha constant, one rate serves all ranks, and sqrt(alpha) times the best one is constant
    (on digits, alpha 16 to 256: the claims *one-knob* and *rate-and-rank*). It was 0.064 at width
    64, 0.04 at 128 and 0.0085 at 576: about 5 / width. That is where to start a sweep, from runs of
    24 to 300 steps, and not a law: a linear task of width 256 wants a larger rate.

    At ranks 1 to 64 the default alpha of 32 with this rate loses at most 0.03 nats against the best
    of all sweeps on digits, on text and on a model of 135 million parameters
    (``claims/defaults.py``). It is for Adam: plain descent, whose step goes with alpha squared,
    needs a rate of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from lora_np.lora import inject
    >>> from lora_np.nn import Linear
    >>> [learning_rate(inject(Linear(np.zeros((128, 128))), rank=rank)) for rank in (1, 64)]
    [0.0069, 0.0069]
    """
    layers = [node for _, node in walk(model) if isinstance(node, LowRank)]
    if not layers:
        return 0.01
    width = max(64, *(min(layer.A.shape[-1], layer.B.shape[-2]) for layer in layers))
    alpha = max(1.0, *(layer.alpha for layer in layers)) * VARIANTS[variant].ratio
    size = 5 if len(layers) > 1 else 12.5
    return float(f"{size / (width * max(math.sqrt(alpha), alpha / 12)):.2g}")
