"""Define a decoder's operations with NumPy functions; ``fused`` has faster versions of most."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import chebinterpolate, chebval

from lora_np.autograd import Tensor, primitive, value
from lora_np.checks import Array
from lora_np.nn import sigmoid, softmax
from lora_np.quantise import Quantised

Operand = Tensor | Array
IGNORED = -100  # the label of a token that is not in the loss, as in torch


def rms_norm(x: Operand, W: Operand, *, eps: float) -> Operand:
    """Return ``W x / sqrt(mean(x^2) + eps)`` over the last axis (arXiv 1910.07467).

    Examples
    --------
    >>> rms_norm(np.array([3.0, 4.0]), np.ones(2), eps=0.0).round(3)
    array([0.849, 1.131])
    """
    result: Operand = W * (x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps))
    return result


def rotate(x: Operand, cos: Array, sin: Array) -> Operand:
    """Rotate each pair of entries i and i + d/2 by the angle at its position (arXiv 2104.09864).

    Parameters
    ----------
    x : Tensor or ndarray of shape (batch, tokens, heads, d)
    cos, sin : ndarray of shape (tokens, 1, d) or (batch, tokens, 1, d)
        Cosine and sine of the angle of each entry; the first half of the sines is negated.

    Examples
    --------
    >>> cos, sin = np.zeros((1, 1, 2)), np.array([[[-1.0, 1.0]]])  # a quarter turn
    >>> rotate(np.array([[[[1.0, 0.0]]]]), cos, sin)
    array([[[[0., 1.]]]])
    """
    half = x.shape[-1] // 2
    result: Operand = x * cos + np.concatenate([x[..., half:], x[..., :half]], axis=-1) * sin
    return result


@functools.lru_cache(maxsize=8)
def visible(queries: int, keys: int, window: int | None) -> Array:
    """Return the causal mask, True where query i sees key j, with an optional sliding window."""
    i, j = np.arange(keys - queries, keys)[:, None], np.arange(keys)
    return (j <= i) & (True if window is None else j > i - window)


def attend(
    q: Operand,
    k: Operand,
    v: Operand,
    *,
    window: int | None,
    scale: float,
    cap: float = 0.0,
    sequence_ids: Array | None = None,
) -> Operand:
    """Compute causal attention for each head: ``softmax(scale q k^T) v`` with masked scores.

    Parameters
    ----------
    q : Tensor or ndarray of shape (batch, queries, heads, d)
        The queries of the last tokens.
    k, v : Tensor or ndarray of shape (batch, keys, kv, d)
        The keys and values of all tokens; each serves ``heads / kv`` heads.
    window : int or None
        The number of tokens that a query sees, including its own; None for all.
    scale : float
        A factor on the scores, usually ``1 / sqrt(d)``.
    cap : float
        If not 0, scores x become ``cap tanh(x / cap)``.
    sequence_ids : ndarray of int, shape (batch, at least keys), optional
        The sequence of each token; a token sees only tokens of its own sequence.

    Returns
    -------
    Tensor or ndarray of shape (batch, queries, heads * d)
    """
    batch, queries, heads, d = q.shape
    keys, kv = k.shape[1:3]
    q = (q * scale).transpose(0, 2, 1, 3)
    # query heads that share a key head form a group; their queries become the rows of one matrix
    q = q.reshape(batch, kv, heads // kv * queries, d)
    scores = q @ k.transpose(0, 2, 3, 1)  # (batch, kv, heads / kv * queries, keys)
    if cap:
        scores = cap * np.tanh(scores / cap)
    # a single query without window and sequences needs no mask, because it sees all keys
    if queries > 1 or window is not None or sequence_ids is not None:
        seen = visible(queries, keys, window)
        if sequence_ids is not None:
            sequence_ids = sequence_ids[:, :keys]
            seen = seen & (sequence_ids[:, -queries:, None] == sequence_ids[:, None])[:, None, None]
        by_query = scores.reshape(batch, kv, -1, queries, keys)
        scores = np.where(seen, by_query, -np.inf).reshape(scores.shape)
    mixed = (softmax(scores) @ v.transpose(0, 2, 1, 3)).reshape(batch, heads, queries, d)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, queries, heads * d)


def gated(gate: Operand, up: Operand) -> Operand:
    """Return ``silu(gate) up`` with ``silu(x) = x sigmoid(x)`` (Shazeer, arXiv 2002.05202).

    Examples
    --------
    >>> gated(np.array([0.0, 100.0]), np.array([1.0, 2.0]))
    array([  0., 200.])
    """
    return gate * sigmoid(gate) * up


def exact_gelu(x: Operand) -> Operand:
    """Return ``x Phi(x)`` for the standard normal distribution function Phi (arXiv 1606.08415).

    Examples
    --------
    >>> exact_gelu(np.array([0.0, 1.0, 100.0])).round(4)
    array([  0.    ,   0.8413, 100.    ])
    """
    return x * normal_below(x)


def _normal_below(x: Array) -> Array:
    # limit `half` to 30, because its square could overflow; exp(-30^2) already rounds to zero
    x, half = np.asarray(x), np.minimum(np.abs(x) * 0.5**0.5, 30)
    tail = 0.5 * np.exp(-half * half) * chebval((56 / (2 + half) - 15) / 13, erfc_series(x.dtype))
    result: Array = np.where(x > 0, 1 - tail, tail)
    return result


normal_below = primitive(
    _normal_below, lambda y, x: lambda g: g * np.exp(-0.5 * x * x) * math.tau**-0.5
)


@functools.cache
def erfc_series(dtype: np.dtype[np.generic]) -> Array:
    """Compute Chebyshev coefficients in z of ``exp(x^2) erfc(x)``, for x = 56 / (13 z + 15) - 2."""

    def scaled(z: Array) -> Any:
        return [math.exp(x * x) * math.erfc(x) for x in 56 / (13 * z + 15) - 2]

    return chebinterpolate(scaled, 14 if dtype == np.float32 else 30).astype(dtype)


def log_probabilities(logits: Operand, labels: Array) -> Operand:
    """Compute ``log softmax(logits)[label]`` for each label, in nats; 0 for an `IGNORED` label.

    Parameters
    ----------
    logits : Tensor or ndarray of shape (..., vocab)
    labels : ndarray of int, shape (...)
    """
    counts = labels != IGNORED
    # subtract the maximum, which does not change the result, so that exp cannot overflow
    z = logits - value(logits).max(axis=-1, keepdims=True)
    picked = z[(*np.indices(labels.shape), np.where(counts, labels, 0))]
    result: Operand = (picked - np.log(np.sum(np.exp(z), axis=-1))) * counts
    return result


def head_log_probabilities(h: Operand, W: Operand, *, labels: Array) -> Operand:
    """Compute `log_probabilities` of the logits ``h W^T``.

    Parameters
    ----------
    h : Tensor or ndarray of shape (..., d)
    W : Tensor, ndarray or Quantised of shape (vocab, d)
    labels : ndarray of int, shape (...)
    """
    W = W.dequantised() if isinstance(W, Quantised) else W
    return log_probabilities(h @ W.T, labels)


def distillation_loss(h: Operand, W: Operand, *, teacher: Array, counts: Array) -> Operand:
    """Compute the mean ``KL(teacher || student)`` of the next-token distributions, in nats.

    Both distributions come from the same head (Hinton et al., arXiv 1503.02531).

    Parameters
    ----------
    h : Tensor or ndarray of shape (..., d)
        The student's hidden states.
    W : Tensor, ndarray or Quantised of shape (vocab, d)
    teacher : ndarray of shape (n, d)
        The teacher's hidden states at the n tokens that count.
    counts : ndarray of bool, shape (...)
        Whether each token of the student counts.
    """
    W = W.dequantised() if isinstance(W, Quantised) else W
    result: Operand = divergence(h[counts] @ W.T, teacher @ value(W).T).mean(axis=0)
    return result


def divergence(z: Operand, teacher: Array) -> Operand:
    """Compute ``KL(softmax(teacher) || softmax(z))`` for each row, in nats.

    Examples
    --------
    >>> z, teacher = np.log([[1.0, 1.0]]), np.log([[1.0, 3.0]])
    >>> divergence(z, teacher).round(4)  # log 2 minus the entropy of 1/4 and 3/4
    array([0.1308])
    """
    z = z - value(z).max(axis=-1, keepdims=True)
    teacher = teacher - np.max(teacher, axis=-1, keepdims=True)
    totals = [np.log(np.sum(np.exp(scores), axis=-1)) for scores in (z, teacher)]
    result: Operand = np.sum(softmax(teacher) * (teacher - z), axis=-1) + totals[0] - totals[1]
    return result
