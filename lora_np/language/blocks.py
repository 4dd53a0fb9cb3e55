"""Define the parts of a decoder layer: norms, attention, MLPs and experts.

The equations name the modules by their roles, such as ``query``. Paths in the tree have
transformers' names, such as ``q_proj``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, Rng
from lora_np.language import composed, fused
from lora_np.language.composed import Operand
from lora_np.language.rotary import Rotary
from lora_np.nn import Linear, Named, gelu, relu, sigmoid, softmax


@dataclass(frozen=True, eq=False)
class RMSNorm:
    """RMS normalisation ``W x / sqrt(mean(x^2) + eps)``; Gemma has ``1 + W`` in place of W.

    Parameters
    ----------
    W : Tensor or ndarray of shape (d,)
    eps : float
    from_one : bool
        Whether the norm multiplies by 1 + W.
    fused : bool
        Whether one primitive computes it; see `composed_operations`.

    Examples
    --------
    >>> RMSNorm(np.ones(2), eps=0.0)(np.array([[3.0, 4.0]])).round(3)
    array([[0.849, 1.131]])
    """

    W: Tensor | Array  # (d,)
    eps: float
    from_one: bool = False
    fused: bool = True

    def __call__(self, x: Operand, *, rng: Rng = None) -> Operand:
        norm = fused.rms_norm if self.fused else composed.rms_norm
        return norm(x, self.W + 1 if self.from_one else self.W, eps=self.eps)


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """Layer normalisation over the last axis: ``W (x - mean(x)) / sqrt(var(x) + eps) + b``.

    Source: Ba, Kiros and Hinton, arXiv 1607.06450.

    Parameters
    ----------
    W : Tensor or ndarray of shape (d,) or (heads, d)
    b : Tensor or ndarray of shape (d,), optional
    eps : float

    Examples
    --------
    >>> LayerNorm(np.ones(2), None, eps=0.0)(np.array([[3.0, 7.0]]))
    array([[-1.,  1.]])
    """

    W: Tensor | Array
    b: Tensor | Array | None
    eps: float

    def __call__(self, x: Operand, *, rng: Rng = None) -> Operand:
        x = x - np.mean(x, axis=-1, keepdims=True)
        y = self.W * (x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + self.eps))
        result: Operand = y if self.b is None else y + self.b
        return result


@dataclass(frozen=True, eq=False)
class HeadNorms(Named):
    """One layer norm for each head, as in StableLM."""

    norms: tuple[LayerNorm, ...]

    def __call__(self, x: Operand) -> Operand:
        return np.concatenate(
            [norm(x[..., i : i + 1, :]) for i, norm in enumerate(self.norms)], axis=-2
        )


class Cache:
    """The key-value cache of one layer, for generating text token by token.

    Parameters
    ----------
    longest : int
        The number of tokens to allocate memory for at first.

    Examples
    --------
    >>> cache = Cache(longest=3)
    >>> k, v = cache.extend(np.ones((1, 2, 1, 4)), np.zeros((1, 2, 1, 4)))
    >>> cache.tokens, k.shape
    (2, (1, 2, 1, 4))
    >>> cache.take([0, 0, 0]).k.shape
    (3, 2, 1, 4)
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.tokens = 0
        self.room: Array = np.empty((2, 1, 0, 1, 1))  # (keys or values, batch, tokens, kv, d)

    @property
    def k(self) -> Array:
        return self.room[0, :, : self.tokens]

    @property
    def v(self) -> Array:
        return self.room[1, :, : self.tokens]

    def extend(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Append keys and values, and return all cached keys and values, (batch, tokens, kv, d)."""
        begin, end = self.tokens, self.tokens + k.shape[1]
        if end > self.room.shape[2]:
            before, longest = self.room[:, :, :begin], max(self.longest, end * (1 + (begin > 0)))
            self.room = np.empty((2, len(k), longest, *k.shape[2:]), k.dtype)
            self.room[:, :, :begin] = before
        self.tokens = end
        self.room[0, :, begin:end] = k
        self.room[1, :, begin:end] = v
        return self.k, self.v

    def take(self, rows: Sequence[int]) -> Cache:
        """Return a copy with the selected rows; a row may be selected more than once."""
        cache = Cache(self.longest)
        cache.tokens, cache.room = self.tokens, self.room[:, rows, : self.tokens]
        return cache


class Sequences(NamedTuple):
    """The sequence of each token in packed rows, and the token's position and sequence length.

    Parameters
    ----------
    ids : ndarray of int, shape (batch, all tokens)
        The sequence of each token, beginning with the tokens in the cache.
    positions : ndarray of int, shape (batch, tokens)
        The position of each new token in its own sequence.
    lengths : ndarray of int, shape (batch, tokens)
        The number of tokens in the sequence of each new token so far.
    """

    ids: Array
    positions: Array
    lengths: Array


def sequences(ids: Array, before: int) -> Sequences:
    """Compute each token's position and sequence length, omitting the ``before`` cached tokens.

    Examples
    --------
    >>> sequences(np.array([[0, 0, 1, 1, 1]]), before=3).positions
    array([[1, 2]])
    """
    positions, lengths = np.empty((2, *ids.shape), np.intp)
    for sequence in np.unique(ids):
        own = ids == sequence
        count = np.cumsum(own, axis=1)
        positions[own] = count[own] - 1
        lengths = np.where(own, count[:, -1:], lengths)
    return Sequences(ids, positions[:, before:], lengths[:, before:])


@dataclass(frozen=True, eq=False, kw_only=True)
class SelfAttention(Named):
    """Grouped-query attention ``W_o softmax(s q k^T) v``, usually with rotary embeddings.

    The modules are linear layers: ``query``, ``key`` and ``value``, or one for all three (``qkv``),
    and ``output``. Queries and keys may have norms.

    Parameters
    ----------
    heads, kv : int
        The number of query heads, and of key and value heads.
    rotary : Rotary or None
        The rotary embedding of queries and keys; None without one.
    window : int, optional
        The number of tokens that a query sees, including its own; by default all up to its own.
    score : float
        s, usually ``1 / sqrt(d)``.
    score_cap : float
        If not 0, scores x become ``cap tanh(x / cap)``.
    joined : {"parts", "heads"}
        The order of the outputs of ``qkv``: by part (all queries first) or by head.
    normed : str
        "heads" if norms apply to each head, "whole" if to all heads together; empty without norms.
    normed_first : bool
        Whether the norms precede the rotary embedding.
    fused : bool
        Whether one primitive computes scores, softmax and weighted sum.
    """

    heads: int
    kv: int
    rotary: Rotary | None
    window: int | None
    score: float
    score_cap: float = 0.0
    joined: str = "parts"
    normed: str = ""
    normed_first: bool = True
    fused: bool = True
    query: Linear | None = None
    key: Linear | None = None
    value: Linear | None = None
    qkv: Linear | None = None
    output: Linear
    query_norm: Norm | None = None
    key_norm: Norm | None = None

    def __call__(
        self,
        x: Operand,
        *,
        rng: Rng = None,
        cache: Cache | None = None,
        packed: Sequences | None = None,
        last: bool = False,
    ) -> Operand:
        q, k, v = self.by_heads(x, rng)
        mixed = self.mixed(q[:, -1:] if last else q, k, v, cache, packed)
        return self.output(mixed, rng=rng)

    def mixed(
        self, q: Operand, k: Operand, v: Operand, cache: Cache | None, packed: Sequences | None
    ) -> Operand:
        """Return attention-weighted sums of the values, of shape (batch, queries, heads * d)."""
        by_head = self.normed == "heads"
        if by_head and self.normed_first:
            q, k = self.norms(q, k)
        if self.rotary is not None:
            before = 0 if cache is None else cache.tokens
            q, k = self.turned(self.rotary, before, q, k, packed)
        if by_head and not self.normed_first:
            q, k = self.norms(q, k)
        settings: dict[str, Any] = {"window": self.window, "scale": self.score}
        if packed is not None:
            settings["sequence_ids"] = packed.ids
        use_fused = self.fused and not self.score_cap
        if cache is None and use_fused:
            return fused.attend(q, k, v, **settings)
        tokens = q.shape[1]
        if cache is not None:
            k, v = cache.extend(value(k), value(v))
            # keep no attention weights, because no gradient passes through a cache
            if tokens > 1 and use_fused:
                return fused.attend_forward(value(q), k, v, **settings, keep=0)[0]
        # with a cache, process a long prompt's queries in blocks, to limit the memory for scores
        size, parts = tokens if cache is None else fused.BLOCK, []
        for i in range(0, tokens, size):
            some = q[:, i : i + size]
            end = k.shape[1] - tokens + i + some.shape[1]
            part = composed.attend(some, k[:, :end], v[:, :end], **settings, cap=self.score_cap)
            parts.append(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def norms(self, q: Operand, k: Operand) -> tuple[Operand, Operand]:
        assert self.query_norm is not None
        assert self.key_norm is not None
        return self.query_norm(q), self.key_norm(k)

    def by_heads(self, x: Operand, rng: Rng) -> tuple[Operand, Operand, Operand]:
        """Compute queries (batch, tokens, heads, d), and keys and values (batch, tokens, kv, d)."""
        if self.qkv is None:
            q, k, v = (layer(x, rng=rng) for layer in (self.query, self.key, self.value) if layer)
        elif self.joined == "heads":
            qkv = heads_of(self.qkv(x, rng=rng), 3 * self.heads)
            return qkv[..., 0::3, :], qkv[..., 1::3, :], qkv[..., 2::3, :]
        else:
            qkv = self.qkv(x, rng=rng)
            width = qkv.shape[-1] // (self.heads + 2 * self.kv)
            q, k, v = np.split(qkv, [self.heads * width, (self.heads + self.kv) * width], axis=-1)
        if self.normed == "whole":
            q, k = self.norms(q, k)
        return heads_of(q, self.heads), heads_of(k, self.kv), heads_of(v, self.kv)

    def turned(
        self, rotary: Rotary, before: int, q: Operand, k: Operand, packed: Sequences | None
    ) -> tuple[Operand, Operand]:
        """Rotate q and k by the angles of their positions; q may belong to the last tokens only."""
        tokens, end = q.shape[1], before + k.shape[1]
        if packed is None:
            cos, sin = rotary.turns(slice(before, end), end, q.dtype)
        else:
            cos, sin = rotary.turns(packed.positions, packed.lengths, q.dtype)
        # rotate q and k of a single token in one call, because the overhead of calls dominates
        if k.shape[1] == 1:
            both = composed.rotate(rotary.halves(np.concatenate([q, k], axis=2)), cos, sin)
            return both[:, :, : self.heads], both[:, :, self.heads :]
        rotate = fused.rotate if self.fused else composed.rotate
        q, k = rotary.halves(q), rotary.halves(k)
        k = rotate(k, cos=cos, sin=sin)
        return rotate(q, cos=cos[..., -tokens:, :, :], sin=sin[..., -tokens:, :, :]), k


def heads_of(x: Operand, heads: int) -> Operand:
    return x.reshape(*x.shape[:-1], heads, -1)


@dataclass(frozen=True, eq=False, kw_only=True)
class MLP(Named):
    """An MLP: ``W_down (f(W_gate x) * W_up x)``, or ``W_down f(W_up x)`` without a gate.

    The gate and up projections are two linear layers, or one (``gate_up``).

    Parameters
    ----------
    activation : str
        f: a key of `ACTIVATIONS`, or "xielu", which has two trained parameters.
    fused : bool
        Whether one primitive computes ``f(W_gate x) * W_up x`` if f is silu.
    """

    activation: str
    fused: bool = True
    gate: Linear | None = None
    up: Linear | None = None
    gate_up: Linear | None = None
    down: Linear
    xielu: XIELU | None = None

    def __call__(self, x: Operand, *, rng: Rng = None) -> Operand:
        if self.gate_up is None:
            parts = [layer(x, rng=rng) for layer in (self.gate, self.up) if layer is not None]
        else:
            parts = [*np.split(self.gate_up(x, rng=rng), 2, axis=-1)]
        if len(parts) == 2:
            hidden = gated(parts[0], parts[1], self.activation, fast=self.fused)
        else:
            hidden = (self.xielu or ACTIVATIONS[self.activation])(*parts)
        return self.down(hidden, rng=rng)


def gated(gate: Operand, up: Operand, activation: str, *, fast: bool) -> Operand:
    if activation == "silu":
        return (fused.gated if fast else composed.gated)(gate, up)
    return ACTIVATIONS[activation](gate) * up


ACTIVATIONS: Mapping[str, Callable[[Operand], Operand]] = {
    "silu": lambda x: x * sigmoid(x),
    "gelu": composed.exact_gelu,
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh"), gelu),
    "relu2": lambda x: relu(x) * relu(x),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class XIELU(Named):
    """The activation function xIELU, with two trained parameters (arXiv 2411.13010).

    It is ``a x^2 + x/2`` above zero and ``b (exp(x) - 1 - x) + x/2`` below, where
    ``a = softplus(alpha_p)`` and ``b = 1/2 + softplus(alpha_n)``.
    """

    alpha_p: Operand
    alpha_n: Operand

    def __call__(self, x: Operand) -> Operand:
        a, b = np.logaddexp(self.alpha_p, 0), np.logaddexp(self.alpha_n, 0) + 0.5
        below = (np.expm1(np.minimum(x, -1e-6)) - x) * b
        return np.where(x > 0, a * x * x, below) + x * 0.5


@dataclass(frozen=True, eq=False)
class Router:
    """A router, whose ``softmax(W x)`` contains each expert's weight for a token x.

    Parameters
    ----------
    W : Tensor or ndarray of shape (experts, d)
    """

    W: Tensor | Array

    def __call__(self, x: Operand) -> Operand:
        return softmax(x @ self.W.T)


@dataclass(frozen=True, eq=False, kw_only=True)
class Routed(Named):
    """A mixture of experts: the weighted sum of the chosen experts, plus any gated shared expert.

    Parameters
    ----------
    chosen : int
        The number of experts that each token is routed to.
    to_one : bool
        Whether the weights of the chosen experts are scaled to a sum of one.
    """

    chosen: int
    to_one: bool
    router: Router
    experts: Experts
    shared: MLP | None = None
    shared_gate: Linear | None = None

    def __call__(self, x: Operand, *, rng: Rng = None) -> Operand:
        flat = x.reshape(-1, x.shape[-1])
        every = self.router(flat)
        # (tokens, chosen): the indices of the experts that each token is routed to
        best = np.argsort(-value(every), axis=1, kind="stable")[:, : self.chosen]
        weights = every[np.arange(len(best))[:, None], best]
        if self.to_one:
            weights = weights / np.sum(weights, axis=1, keepdims=True)
        # sort the (token, expert) pairs by expert, so that each expert processes one slice
        order = np.argsort(best, axis=None, kind="stable")
        starts = np.searchsorted(best.ravel()[order], np.arange(every.shape[1] + 1))
        rows = flat[order // self.chosen]
        parts = [
            self.experts(rows[starts[i] : starts[i + 1]], int(i))
            for i in np.flatnonzero(np.diff(starts))
        ]
        outputs = np.concatenate(parts)[np.argsort(order)].reshape(*best.shape, -1)
        y = np.sum(outputs * weights[..., None], axis=1)
        if self.shared is not None and self.shared_gate is not None:
            y = y + sigmoid(self.shared_gate(flat, rng=rng)) * self.shared(flat, rng=rng)
        result: Operand = y.reshape(x.shape)
        return result


@dataclass(frozen=True, eq=False, kw_only=True)
class Experts(Named):
    """Gated MLPs in two arrays: ``gate_up`` (experts, 2 inner, d), ``down`` (experts, d, inner)."""

    activation: str
    gate_up: Operand
    down: Operand

    def __call__(self, x: Operand, i: int) -> Operand:
        gate, up = np.split(x @ self.gate_up[i].T, 2, axis=-1)
        result: Operand = gated(gate, up, self.activation, fast=True) @ self.down[i].T
        return result


Norm = RMSNorm | LayerNorm | HeadNorms


@dataclass(frozen=True, eq=False, kw_only=True)
class DecoderLayer(Named):
    """A decoder layer: ``x = x + attention(norm(x))``, then ``x = x + mlp(norm(x))``.

    The norms may come before or after attention and the MLP.

    Parameters
    ----------
    parallel : bool
        Whether attention and MLP have the same input.
    residual : float
        A factor on the outputs of attention and MLP before they are added.
    """

    parallel: bool = False
    residual: float = 1.0
    attention: SelfAttention
    mlp: MLP | Routed
    before_attention: Norm | None = None
    after_attention: Norm | None = None
    before_mlp: Norm | None = None
    after_mlp: Norm | None = None

    def __call__(
        self,
        x: Operand,
        *,
        rng: Rng = None,
        cache: Cache | None = None,
        packed: Sequences | None = None,
        last: bool = False,
    ) -> Operand:
        y = x if self.before_attention is None else self.before_attention(x)
        y = self.attention(y, rng=rng, cache=cache, packed=packed, last=last)
        x = x[:, -1:] if last else x
        added = self.plus(x, y if self.after_attention is None else self.after_attention(y))
        y = x if self.parallel else added
        y = self.mlp(y if self.before_mlp is None else self.before_mlp(y), rng=rng)
        return self.plus(added, y if self.after_mlp is None else self.after_mlp(y))

    def mixed(self, x: Operand, cache: Cache | None = None) -> Operand:
        """Compute attention's weighted sums of the values, before the output projection."""
        y = x if self.before_attention is None else self.before_attention(x)
        return self.attention.mixed(*self.attention.by_heads(y, None), cache, None)

    def plus(self, x: Operand, y: Operand) -> Operand:
        return x + (y if self.residual == 1.0 else y * self.residual)
