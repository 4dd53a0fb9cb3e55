"""Training on text: batches of tokens, the loss of the next token, and the likelihood of a text."""

from __future__ import annotations

from typing import Any

import numpy as np

from lora_np.checks import Array
from lora_np.language import composed, fused
from lora_np.language.decoder import LanguageModel
from lora_np.nn import Linear
from lora_np.quantise import Quantised

IGNORED = -100  # the label of a token that does not count, as in torch


def token_loss(
    model: LanguageModel,
    tokens: Array,
    labels: Array | None = None,
    *,
    rng: np.random.Generator | None = None,
) -> Any:
    """Mean cross-entropy in nats of the token that follows each one.

    Parameters
    ----------
    model : LanguageModel
        What is trained or measured.
    tokens : ndarray of int, shape (batch, tokens)
        Each row is a text.
    labels : ndarray of int, shape (batch, tokens), optional
        The token that follows each of ``tokens``, or -100 where it does not count. By default all of
        ``tokens`` but the first follow all but the last.
    rng : Generator, optional
        Switches dropout on.

    Returns
    -------
    Tensor or ndarray
        One number.
    """
    if labels is None:
        tokens, labels = tokens[:, :-1], tokens[:, 1:]
    head = model.lm_head
    if isinstance(head, Linear) and head.b is None:
        if isinstance(head.W, Quantised):
            return fused.quantised_head_loss(
                model.model(tokens, rng=rng), W=head.W, labels=labels, ignore=IGNORED
            )
        loss = fused.head_loss if model.model.norm.fused else composed.head_loss
        return loss(model.model(tokens, rng=rng), head.W, labels=labels, ignore=IGNORED)
    identity = np.eye(head.d_out)
    return composed.head_loss(model(tokens, rng=rng), identity, labels=labels, ignore=IGNORED)
