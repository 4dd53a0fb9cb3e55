"""What data means to a language model: the inputs of its layers, as Gram matrices, and bits to learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lora_np.checks import Array, number
from lora_np.language.data import AnyData, as_data
from lora_np.language.decoder import LanguageModel
from lora_np.language.packing import Row, batch, batch_loss, documents, length, packed, together
from lora_np.language.text import within
from lora_np.lora import merge
from lora_np.nn import Linear, freeze, replace

ROWS = 8  # at a time


def grams(model: LanguageModel, data: AnyData, *, context: int | None = None) -> dict[str, Array]:
    """``X.T @ X / n`` of the inputs X (n, k) of each linear layer, over the n tokens of ``data``.

    Parameters
    ----------
    model : LanguageModel
        With a vocabulary, and perhaps with adapters, which count.
    data : Data, str or sequence
        What `read_data` reads, a text, or examples, as for `finetune`.
    context : int, optional
        Tokens of a row; by default at most 256, as for `finetune`.

    Returns
    -------
    dict of str to ndarray of shape (k, k)
        By the path of each layer. Layers that are given the same inputs share an array.

    Raises
    ------
    ValueError
        If the data are too short or damaged, or have characters outside the vocabulary.

    See Also
    --------
    lora_np.adapters.combine : Takes one of these for each adapter ("regmean").
    lora_np.adapters.resize : Takes one, and minimises the error of outputs.

    Notes
    -----
    The mean, so that a long text counts no more than a short one. Memory does not grow with the data.

    Examples
    --------
    >>> from lora_np import language
    >>> found = grams(language.load("austen"), language.read_text("genesis")[:2000])
    >>> found["model.layers.0.self_attn.q_proj"].shape
    (128, 128)
    """
    rows = rows_of(model, data, context)
    found: dict[str, Array] = {}
    owners: dict[str, str] = {}  # of what several layers are given
    latest: tuple[str, Any] = "", None
    counts: Any = None

    def watched(path: str, layer: Linear) -> Any:
        def call(x: Array, **options: Any) -> Any:
            nonlocal latest
            if latest[1] is not x:
                latest, inputs = (path, x), x[counts]
                found[path] = found.get(path, 0.0) + (inputs.T @ inputs).astype(np.float64)
            owners[path] = latest[0]
            return layer(x, **options)

        return call

    seen, tokens = replace(merge(model), Linear, watched), 0
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        part = batch(some)
        counts = np.arange(part.tokens.shape[1]) < np.array([[length(row)] for row in some])
        seen(part.tokens, texts=part.texts)
        tokens += int(counts.sum())
    means = {path: gram / tokens for path, gram in found.items()}
    return {path: means[owner] for path, owner in owners.items()}


def bits_to_learn(model: LanguageModel, data: AnyData, *, floor: float = 0.0) -> float:
    """What data asks of an adapter: its learnt tokens, times the base's loss above a floor, in bits.

    Parameters
    ----------
    model : LanguageModel
        The base.
    data : Data, str or sequence
        As for `finetune`.
    floor : float
        The loss that is aimed at, in nats a token: 0 where all is to be known by heart.

    Returns
    -------
    float
        A number of bits. A loss below the floor asks nothing.

    Raises
    ------
    ValueError
        As for `finetune`.

    See Also
    --------
    lora_np.accounting.capacity : What an adapter can hold.

    Examples
    --------
    >>> from lora_np import language
    >>> model, text = language.load("austen"), language.read_text("genesis")[:1025]
    >>> 2000 < bits_to_learn(model, text) < 4000
    True
    """
    number("floor", floor, minimum=0)
    rows, frozen = rows_of(model, data, None), freeze(model)
    batches = together([rows[i : i + ROWS] for i in range(0, len(rows), ROWS)])
    loss = float(np.mean([batch_loss(frozen, part) for part in batches]))
    learnt = sum(document.learnt for row in rows for document in row)
    return learnt * max(loss - floor, 0.0) / math.log(2)


def rows_of(model: LanguageModel, data: AnyData, context: int | None) -> list[Row]:
    context = within(model, min(model.context, 256) if context is None else context)
    return packed(documents(as_data(data), model, context)[0], context)
