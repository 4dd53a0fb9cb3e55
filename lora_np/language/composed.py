"""A decoder's operations in NumPy's own functions: these define them, `fused` makes them faster."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from lora_np.checks import Array
from lora_np.nn import cross_entropy, sigmoid, softmax
from lora_np.quantise import Quantised


def rms_norm(x: Any, W: Any, *, eps: float) -> Any:
    """``W x / sqrt(mean(x^2) + eps)`` over the last axis (Zhang and Sennrich, arXiv 1910.07467).

    Examples
    --------
    >>> rms_norm(np.array([3.0, 4.0]), np.ones(2), eps=0.0).round(3)
    array([0.849, 1.131])
    """
    return W * (x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps))


def rotate(x: Any, cos: Array, sin: Array) -> Any:
    """Turn entries i and i + d/2 of each head by the angle of its position (Su et al., arXiv 2104.09864).

    Parameters
    ----------
    x : Tensor or ndarray of shape (..., tokens, heads, d)
    cos, sin : ndarray of shape (tokens, d/2)

    Examples
    --------
    >>> quarter = np.array([[np.cos(np.pi / 2)]]), np.array([[np.sin(np.pi / 2)]])
    >>> rotate(np.array([[[1.0, 0.0]]]), *quarter).round(3)
    array([[[0., 1.]]])
    """
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    cos, sin = cos[:, np.newaxis], sin[:, np.newaxis]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


@functools.lru_cache(maxsize=8)
def visible(queries: int, keys: int, window: int | None) -> Array:
    """Whether the query in row i, the ``keys - queries + i``-th token, may look at key j: (queries, keys)."""
    i, j = np.arange(keys - queries, keys)[:, np.newaxis], np.arange(keys)
    return (j <= i) & (True if window is None else j > i - window)


def attend(q: Any, k: Any, v: Any, window: int | None = None) -> Any:
    """``softmax(q k^T / sqrt(d)) v`` for each head, where no token sees a later one.

    Parameters
    ----------
    q : Tensor or ndarray of shape (batch, queries, heads, d)
        The last ``queries`` of the tokens.
    k, v : Tensor or ndarray of shape (batch, keys, kv, d)
        ``kv`` divides ``heads``: each key serves ``heads / kv`` of them.
    window : int, optional
        How many tokens back a query sees, itself included; by default all.

    Returns
    -------
    Tensor or ndarray of shape (batch, queries, heads * d)
    """
    batch, queries, heads, d = q.shape
    keys, kv = k.shape[1:3]
    q = q.transpose(0, 2, 1, 3).reshape(batch, kv, heads // kv, queries, d)
    k = k.transpose(0, 2, 3, 1).reshape(batch, kv, 1, d, keys)
    v = v.transpose(0, 2, 1, 3).reshape(batch, kv, 1, keys, d)
    scores = np.where(visible(queries, keys, window), q @ k * d**-0.5, -np.inf)
    mixed = (softmax(scores) @ v).reshape(batch, heads, queries, d)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, queries, heads * d)


def attention(
    q: Any, k: Any, v: Any, *, cos: Array, sin: Array, heads: int, kv: int, window: int | None = None
) -> Any:
    """`attend` after `rotate` of q (batch, tokens, heads * d) and k; k and v are (batch, tokens, kv * d)."""
    batch, tokens, width = q.shape
    d = width // heads
    q, k = (rotate(x.reshape(batch, tokens, -1, d), cos, sin) for x in (q, k))
    return attend(q, k, v.reshape(batch, tokens, kv, d), window)


def gated(gate: Any, up: Any) -> Any:
    """``silu(gate) up`` with ``silu(x) = x sigmoid(x)`` (Shazeer, arXiv 2002.05202).

    Examples
    --------
    >>> gated(np.array([0.0, 100.0]), np.array([1.0, 2.0]))
    array([  0., 200.])
    """
    return gate * sigmoid(gate) * up


def head_loss(h: Any, W: Any, *, labels: Array, ignore: int = -100) -> Any:
    """Cross-entropy of ``softmax(h W^T)`` in nats, the mean over the labels that are not ``ignore``.

    Parameters
    ----------
    h : Tensor or ndarray of shape (..., d)
    W : Tensor, ndarray or Quantised of shape (vocab, d)
    labels : ndarray of int, shape (...)
    ignore : int
        The label of tokens that do not count.
    """
    h, labels = h.reshape(-1, h.shape[-1]), labels.reshape(-1)
    keep = labels != ignore
    W = W.dequantised() if isinstance(W, Quantised) else W
    return cross_entropy(h[keep] @ W.T, labels[keep])
