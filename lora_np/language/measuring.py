"""Measure the loss on a text, the bits needed to learn data, and Gram matrices of layer inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lora_np.checks import Array, Rng, number
from lora_np.language.composed import Operand
from lora_np.language.data import AnyData, as_data
from lora_np.language.decoder import LanguageModel, vocabulary_of
from lora_np.language.packing import (
    Row,
    batch,
    documents,
    in_batches,
    length,
    mean_loss,
    packed,
    pages,
    within,
)
from lora_np.lora import merge
from lora_np.nn import Linear, replace

AT_ONCE = 4096  # tokens per batch of `likelihood`
ROWS = 8  # rows per batch of `grams` and `bits_to_learn`


@dataclass(frozen=True)
class Likelihood:
    """A model's mean loss on a text, its perplexity and bits per byte, returned by `likelihood`.

    Parameters
    ----------
    loss : float
        The mean loss in nats per token.
    tokens : int
        The number of predicted tokens.
    bits_per_byte : float
        The loss in bits per byte of the text in UTF-8, to compare models with different
        vocabularies.
    """

    loss: float
    tokens: int
    bits_per_byte: float

    @property
    def perplexity(self) -> float:
        """The perplexity, which is ``exp(loss)``.

        A choice among this many equally likely tokens would be as uncertain.
        """
        return math.exp(self.loss)


def likelihood(model: LanguageModel, text: str, *, max_length: int | None = None) -> Likelihood:
    """Measure a model's mean loss on ``text``, its perplexity, and bits per byte.

    Parameters
    ----------
    model : LanguageModel
        A model with a vocabulary.
    text : str
        The text to predict. A remainder that is shorter than a window is left out.
    max_length : int, optional
        Tokens in a window: by default, and at most, ``model.context``. A window does not see the
        text before it. Only the first window begins with BOS, if the vocabulary adds one to texts.

    Returns
    -------
    Likelihood
        The mean ``loss`` over all ``tokens`` in nats per token, its exponential ``perplexity``, and
        ``bits_per_byte`` of the text in UTF-8, to compare models with different vocabularies.

    Raises
    ------
    ValueError
        If the text is shorter than one window or has characters outside the vocabulary, or
        ``max_length`` is more than the model's.

    Examples
    --------
    >>> from lora_np import language
    >>> austen = language.load("austen")
    >>> for name in ("austen-held-out", "genesis"):
    ...     print(name, round(likelihood(austen, language.read_text(name)[:3000]).perplexity, 1))
    austen-held-out 3.5
    genesis 5.6
    """
    max_length = within(model, model.context if max_length is None else max_length)
    vocabulary = vocabulary_of(model)
    tokens = vocabulary.encode(text)
    rows = [[page] for page in pages(tokens, max_length)]
    loss = mean_loss(model, in_batches(rows, max(1, AT_ONCE // max_length)))
    predicted = tokens[1 : 1 + max_length * len(rows)]
    n_bytes = len(vocabulary.decode(predicted).encode())
    return Likelihood(loss, predicted.size, loss * predicted.size / math.log(2) / max(n_bytes, 1))


def grams(
    model: LanguageModel, data: AnyData, *, max_length: int | None = None
) -> dict[str, Array]:
    """Compute the Gram matrix ``X.T @ X / n`` of each linear layer's inputs X at n tokens of data.

    Parameters
    ----------
    model : LanguageModel
        A model with a vocabulary. If it has adapters, they change the inputs of later layers.
    data : Data, str or sequence
        The result of `read_data`, a text, or examples, as for `finetune`.
    max_length : int, optional
        Tokens of a row; by default at most 256, as for `finetune`.

    Returns
    -------
    dict of str to ndarray of shape (k, k)
        The matrix of each layer, by the layer's path. Layers with the same inputs share an array.

    Raises
    ------
    ValueError
        If the data are too short or damaged, or have characters outside the vocabulary.

    See Also
    --------
    lora_np.adapters.combine : Combine adapters by "regmean", with one result for each adapter.
    lora_np.adapters.resize : Reduce ranks, minimising the error of outputs by one result.

    Notes
    -----
    The result is a mean over tokens, so it does not grow with the amount of data, and neither does
    memory.

    Examples
    --------
    >>> from lora_np import language
    >>> found = grams(language.load("austen"), language.read_text("genesis")[:2000])
    >>> found["model.layers.0.self_attn.q_proj"].shape
    (128, 128)
    """
    rows = rows_of(model, data, max_length)
    grams: dict[str, Array] = {}
    owners: dict[str, str] = {}  # maps each layer to the first layer with the same input
    latest: tuple[str, Array | None] = "", None
    counts = np.empty(0, bool)

    def watched(path: str, layer: Linear) -> Callable[..., Operand]:
        def call(x: Array, *, rng: Rng = None) -> Operand:
            nonlocal latest
            if latest[1] is not x:
                latest, inputs = (path, x), x[counts]
                grams[path] = grams.get(path, 0.0) + (inputs.T @ inputs).astype(np.float64)
            owners[path] = latest[0]
            return layer(x, rng=rng)

        return call

    seen, tokens = replace(merge(model), Linear, watched), 0
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        part = batch(some)
        counts = np.arange(part.tokens.shape[1]) < np.array([[length(row)] for row in some])
        seen(part.tokens, sequence_ids=part.sequence_ids)
        tokens += int(counts.sum())
    means = {path: gram / tokens for path, gram in grams.items()}
    return {path: means[owner] for path, owner in owners.items()}


def bits_to_learn(model: LanguageModel, data: AnyData, *, target_loss: float = 0.0) -> float:
    """Measure the bits needed to learn data, from the model's loss above ``target_loss``.

    Parameters
    ----------
    model : LanguageModel
        The base model.
    data : Data, str or sequence
        The data, as for `finetune`. Examples are cut to ``model.context`` tokens.
    target_loss : float
        The loss to reach, in nats per token: 0 to memorise everything.

    Returns
    -------
    float
        The number of bits; 0 if the loss is already below ``target_loss``.

    Raises
    ------
    ValueError
        If the data are invalid, as for `finetune`.

    See Also
    --------
    lora_np.accounting.capacity : Estimate how many bits an adapter can memorise.

    Examples
    --------
    >>> from lora_np import language
    >>> model, text = language.load("austen"), language.read_text("genesis")[:1025]
    >>> 2000 < bits_to_learn(model, text) < 4000
    True
    """
    number("target_loss", target_loss)
    data, most = as_data(data), None
    if data.whole is not None:
        learnt = len(vocabulary_of(model).encode(data.whole)) - 1
        most = min(within(model, None), max(learnt, 1))
    rows = rows_of(model, data, most)
    loss = mean_loss(model, in_batches(rows, ROWS))
    if data.whole is None:  # else the loss of a remainder, which fills no window, is assumed equal
        learnt = sum(document.learnt for row in rows for document in row)
    return learnt * max(loss - target_loss, 0.0) / math.log(2)


def rows_of(model: LanguageModel, data: AnyData, max_length: int | None) -> list[Row]:
    max_length = within(model, max_length)
    return packed(documents(as_data(data), model, max_length)[0], max_length)
