"""Choose default values of alpha and the learning rate, based on recorded training runs."""

from __future__ import annotations

import math
from typing import Any

from lora_np.lora.layers import LowRank
from lora_np.lora.variants import VARIANTS
from lora_np.nn import walk

ALPHA = 32.0


def learning_rate(model: Any, variant: str = "lora") -> float:
    """Choose a peak learning rate for Adam: ``5 / (width max(sqrt(alpha), alpha / 12))``.

    If only one layer has a LoRA, the rate is 2.5 times as high.

    Parameters
    ----------
    model : tree
        An adapted model. Its width is the largest min(d, k) of the layers with a LoRA, but at least
        64; its alpha is the largest, but at least 1.
    variant : str
        The row of `VARIANTS` whose optimizer will be used. LoRA+ with ratio x uses the rate for x
        times alpha, since it is equivalent to LoRA with that alpha.

    Returns
    -------
    float
        The learning rate, rounded to two digits; 0.01 for a model without a LoRA.

    Notes
    -----
    The rate is for schedules that decay to zero, as in `fit`, `sweep` and `finetune`. With a
    constant alpha, one rate works for all ranks (the claims *one-knob* and *rate-and-rank*). Up to
    alpha 256, sqrt(alpha) times the best rate is constant: in recorded runs of 24 to 300 steps it
    was 0.064 at width 64, 0.04 at 128 and 0.0085 at 576, about 5 / width. With a larger alpha, A
    hardly leaves its initialisation, and the best rate falls as 1 / alpha. On digits and linear
    tasks, the best rate for a single adapted layer was 2 to 6 times that of the rule for several.

    ``claims/lab/defaults.py`` compares the default of `fit` with the best rate on tasks that were
    not used to derive the rule, at ranks 1, 8 and 64: digits mirrored or inverted, permuted names,
    the middle layer alone at widths 64 to 256, a regression and a text. The default loses at most
    0.05 nats (on the regression, 5 % of the gain), with three exceptions: 0.11 at rank 1 and 0.09
    at rank 64 on inverted digits, where some networks end at chance; and 0.053 at rank 8 for the
    middle layer of width 256, whose best rate is 2.8 times as high. On SmolLM2 with 135 million
    parameters the default loses at most 0.014 nats; at alpha 256 and 512, the rate is still 1.6
    times too high.

    The best rate also depends on the batch size: on digits, it was a third to half of the default
    for 1,200 batches of 16, and twice the default for 75 batches of 256. All this applies to Adam;
    plain gradient descent, whose steps grow with alpha squared, needs a different rate.

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
