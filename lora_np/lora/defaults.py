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
        The row of `VARIANTS` whose optimizer it is for: LoRA+ with ratio x takes the rate of x
        times alpha, since it is LoRA with that alpha.

    Returns
    -------
    float
        With two digits; 0.01 for a model without a LoRA.

    Notes
    -----
    The rate is for runs in which it decays to zero, as in `fit`, `sweep` and `finetune`. With alpha
    constant, one rate serves all ranks (the claims *one-knob* and *rate-and-rank*). Up to alpha
    256, sqrt(alpha) times the best rate is constant: recorded runs of 24 to 300 steps had 0.064 at
    width 64, 0.04 at 128 and 0.0085 at 576, about 5 / width. At larger alpha A hardly leaves its
    initialisation, and the best rate falls as 1 / alpha. On digits and linear tasks, a layer
    adapted alone was best at 2 to 6 times the rule of several layers.

    ``claims/lab/defaults.py`` compares the default of `fit` with the best rate on tasks that the
    rule was not made on, at ranks 1, 8 and 64: digits mirrored or inverted, permuted names, the
    middle layer alone at widths 64 to 256, a regression and a text. It loses at most 0.05 nats (of
    the regression, 5 % of the gain), with three exceptions in nats: on digits inverted, where some
    networks end at chance, 0.11 at rank 1 and 0.09 at rank 64; and for the middle layer of width
    256, whose best rate is 2.8 times as high, 0.053 at rank 8. On SmolLM2 with 135 million
    parameters it loses at most 0.014; at alpha 256 and 512 the rate is still 1.6 times too high.

    The best rate also depends on the batch: on digits, 1,200 batches of 16 wanted a third to half
    of it, and 75 of 256 twice as much. All this is for Adam: plain descent, whose step goes with
    alpha squared, needs a rate of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from lora_np.lora import inject
    >>> from lora_np.nn import Linear
    >>> layer = Linear(np.zeros((128, 128)))
    >>> [learning_rate(inject([layer, layer], rank=rank)) for rank in (1, 64)]
    [0.0069, 0.0069]
    >>> learning_rate(inject(layer, rank=1))
    0.017
    """
    layers = [node for _, node in walk(model) if isinstance(node, LowRank)]
    if not layers:
        return 0.01
    width = max(64, *(min(layer.A.shape[-1], layer.B.shape[-2]) for layer in layers))
    alpha = max(1.0, *(layer.alpha for layer in layers)) * VARIANTS[variant].ratio
    size = 5 if len(layers) > 1 else 12.5
    return float(f"{size / (width * max(math.sqrt(alpha), alpha / 12)):.2g}")
