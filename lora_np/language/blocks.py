"""What a layer of a decoder is made of: norms, attention, MLPs and experts, whatever a family calls
them.

A node's fields are called as transformers calls its modules, so that a path in the tree is the name
there. The equations know them by their roles: `named` makes the class that has both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, make_dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array, Rng
from lora_np.language import composed, fused
from lora_np.language.rotary import Rotary
from lora_np.nn import gelu, relu, sigmoid, softmax


class Part:
    """A node whose modules are called as in transformers."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


@functools.cache
def named(kind: type, names: tuple[str, ...], roles: tuple[tuple[str, str], ...]) -> type:
    """``kind`` with a field of each of these names, which are also properties under their roles.

    Parameters
    ----------
    kind : type
        A dataclass of settings.
    names : tuple of str
        Of the fields to add.
    roles : tuple of (str, str)
        Roles, and the names of the fields that have them.

    Examples
    --------
    >>> part = named(MLP, ("c_fc", "c_proj"), (("up", "c_fc"), ("down", "c_proj")))
    >>> part(c_fc=1, c_proj=2, activation="gelu").up
    1
    """
    own: dict[str, Any] = {role: property(attrgetter(name)) for role, name in roles if role != name}
    own["__module__"] = kind.__module__
    how: dict[str, Any] = {"frozen": True, "eq": False, "kw_only": True}
    fields = [(name, Any) for name in names]
    return make_dataclass(kind.__name__, fields, bases=(kind,), namespace=own, **how)


@dataclass(frozen=True, eq=False)
class RMSNorm:
    """``h = W x / sqrt(mean(x^2) + eps)``; with ``from_one``, ``1 + W`` instead of W (Gemma).

    Parameters
    ----------
    W : Tensor or ndarray of shape (d,)
    eps : float
    from_one : bool
        Whether W is the distance from one.
    fused : bool
        Whether one primitive does it; see `composed_operations`.

    Examples
    --------
    >>> RMSNorm(np.ones(2), eps=0.0)(np.array([[3.0, 4.0]])).round(3)
    array([[0.849, 1.131]])
    """

    W: Tensor | Array  # (d,)
    eps: float
    from_one: bool = False
    fused: bool = True

    def __call__(self, x: Any, *, rng: Rng = None) -> Any:
        norm = fused.rms_norm if self.fused else composed.rms_norm
        return norm(x, self.W + 1 if self.from_one else self.W, eps=self.eps)


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """``h = W (x - mean(x)) / sqrt(var(x) + eps) + b`` over the last axis (Ba et al., arXiv
    1607.06450).

    Parameters
    ----------
    W : Tensor or ndarray of shape (d,) or (heads, d)
    b : Tensor or ndarray of shape (d,), optional
    eps : float

    Examples
    --------
    >>> LayerNorm(np.ones(2), None, eps=0.0)(np.array([[3.0, 5.0]]))
    array([[-1.,  1.]])
    """

    W: Tensor | Array
    b: Tensor | Array | None
    eps: float

    def __call__(self, x: Any, *, rng: Rng = None) -> Any:
        x = x - np.mean(x, axis=-1, keepdims=True)
        y = self.W * (x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + self.eps))
        return y if self.b is None else y + self.b


@dataclass(frozen=True, eq=False)
class HeadNorms(Part):
    """A norm of its own for each head (StableLM)."""

    norms: tuple[LayerNorm, ...]

    def __call__(self, x: Any) -> Any:
        return np.concatenate(
            [norm(x[..., i : i + 1, :]) for i, norm in enumerate(self.norms)], axis=-2
        )


class Cache:
    """Keys and values that one layer has computed so far, for generation token by token.

    Parameters
    ----------
    longest : int
        The largest number of tokens.

    Examples
    --------
    >>> cache = Cache(longest=3)
    >>> k, v = cache.extend(np.ones((1, 2, 1, 4)), np.zeros((1, 2, 1, 4)))
    >>> cache.tokens, k.shape
    (2, (1, 2, 1, 4))
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.tokens = 0
        self.k: Array = np.empty(0)  # until the first come
        self.v: Array = np.empty(0)

    def extend(self, k: Array, v: Array) -> tuple[Array, Array]:
        """All keys and values so far, with these as the last: (batch, tokens, kv, d)."""
        start, self.tokens = self.tokens, self.tokens + k.shape[1]
        if not self.k.size:
            self.k, self.v = np.empty((2, len(k), self.longest, *k.shape[2:]), k.dtype)
        self.k[:, start : self.tokens] = k
        self.v[:, start : self.tokens] = v
        return self.k[:, : self.tokens], self.v[:, : self.tokens]


def positions(before: int, tokens: int, texts: Array | None) -> Array:
    """The place in its own text of each token after so many before: (tokens,) or (batch,
    tokens).
    """
    if texts is None:
        return np.arange(before, before + tokens)
    places = np.empty_like(texts, dtype=np.intp)
    for text in np.unique(texts):
        own = texts == text
        places[own] = np.cumsum(own, axis=1)[own] - 1
    return places[:, before:]


@dataclass(frozen=True, eq=False)
class SelfAttention(Part):
    """``W_o softmax(s q k^T) v`` with rotated queries and keys; each key serves a group of queries.

    Its modules are linear maps for ``query``, ``key`` and ``value``, or one for all (``qkv``), and
    for ``output``; and perhaps norms of queries and keys.

    Parameters
    ----------
    heads, kv : int
        Heads of queries, and of keys and values.
    rotary : Rotary or None
        How positions rotate queries and keys, if they do.
    window : int, optional
        How many tokens back a query sees.
    score : float
        s, usually ``1 / sqrt(d)``.
    score_cap : float
        The scores go through ``cap tanh(x / cap)``; 0 for none.
    joined : {"parts", "heads"}
        Whether a map for all gives all queries first, then keys and values; or those of each head
        together.
    normed : str
        "heads" if norms see each head, "whole" if all of them; empty without norms.
    normed_first : bool
        Whether they come before the rotation.
    fused : bool
        Whether one primitive does the middle.
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
    qkv: ClassVar[Any] = None

    def __call__(
        self, x: Any, *, rng: Rng = None, cache: Cache | None = None, texts: Array | None = None
    ) -> Any:
        q, k, v = self.by_heads(x, rng)
        if self.normed == "heads" and self.normed_first:
            q, k = self.query_norm(q), self.key_norm(k)
        if self.rotary is not None:
            q, k = self.turned(self.rotary, 0 if cache is None else cache.tokens, q, k, texts)
        if self.normed == "heads" and not self.normed_first:
            q, k = self.query_norm(q), self.key_norm(k)
        tokens = x.shape[1]
        how: dict[str, Any] = {"window": self.window, "scale": self.score}
        if cache is not None:
            k, v = cache.extend(k, v)
        if self.fused and not self.score_cap and (cache is None or 1 < tokens == cache.tokens):
            return self.output(fused.attend(q, k, v, texts=texts, **how), rng=rng)
        how |= {"cap": self.score_cap, "texts": texts}
        if cache is None or tokens == 1:
            return self.output(composed.attend(q, k, v, **how), rng=rng)
        parts = []
        for i in range(0, tokens, fused.BLOCK):  # some queries of a long prompt at a time
            some = q[:, i : i + fused.BLOCK]
            end = cache.tokens - tokens + i + some.shape[1]
            parts.append(composed.attend(some, k[:, :end], v[:, :end], **how))
        return self.output(np.concatenate(parts, axis=1), rng=rng)

    def by_heads(self, x: Any, rng: Rng) -> Any:
        """Queries, keys and values, (batch, tokens, heads, d) each."""
        if self.qkv is None:
            q, k, v = self.query(x, rng=rng), self.key(x, rng=rng), self.value(x, rng=rng)
        elif self.joined == "heads":
            each = heads_of(self.qkv(x, rng=rng), 3 * self.heads)
            return [each[..., i::3, :] for i in range(3)]
        else:
            qkv = self.qkv(x, rng=rng)
            width = qkv.shape[-1] // (self.heads + 2 * self.kv)
            q, k, v = np.split(qkv, [self.heads * width, (self.heads + self.kv) * width], axis=-1)
        if self.normed == "whole":
            q, k = self.query_norm(q), self.key_norm(k)
        return heads_of(q, self.heads), heads_of(k, self.kv), heads_of(v, self.kv)

    def turned(self, rotary: Rotary, before: int, q: Any, k: Any, texts: Array | None) -> Any:
        """Queries and keys, turned by the angles of their positions."""
        longest = before + q.shape[1]
        where: Any = slice(before, longest)
        rotate = fused.rotate if self.fused else composed.rotate
        if texts is not None and (rotary.trained or not self.normed_first):
            # scores depend on more than distances
            where, rotate = positions(before, q.shape[1], texts), composed.rotate
            longest = int(where.max()) + 1
        cos, sin = rotary.turns(where, longest, q.dtype)
        if q.shape[1] == 1:  # at once: for a single token calls are what costs
            both = composed.rotate(rotary.halves(np.concatenate([q, k], axis=2)), cos, sin)
            return both[:, :, : self.heads], both[:, :, self.heads :]
        return rotate(rotary.halves(q), cos=cos, sin=sin), rotate(
            rotary.halves(k), cos=cos, sin=sin
        )


def heads_of(x: Any, heads: int) -> Any:
    return x.reshape(*x.shape[:-1], heads, -1)


@dataclass(frozen=True, eq=False)
class MLP(Part):
    """``W_down (f(W_gate x) * W_up x)``, or without a gate ``W_down f(W_up x)``.

    Gate and up are two linear maps, or one (``gate_up``).

    Parameters
    ----------
    activation : str
        f: a key of `ACTIVATIONS`, or "xielu", whose two numbers are learned.
    fused : bool
        Whether one primitive does the middle, for silu.
    """

    activation: str
    fused: bool = True
    gate: ClassVar[Any] = None
    gate_up: ClassVar[Any] = None

    def __call__(self, x: Any, *, rng: Rng = None) -> Any:
        if self.gate_up is not None:
            gate, up = np.split(self.gate_up(x, rng=rng), 2, axis=-1)
        elif self.gate is not None:
            gate, up = self.gate(x, rng=rng), self.up(x, rng=rng)
        else:
            up = self.up(x, rng=rng)
            f = self.act_fn if self.activation == "xielu" else ACTIVATIONS[self.activation]
            return self.down(f(up), rng=rng)
        return self.down(gated(gate, up, self.activation, fast=self.fused), rng=rng)


def gated(gate: Any, up: Any, activation: str, *, fast: bool) -> Any:
    if activation == "silu":
        return (fused.gated if fast else composed.gated)(gate, up)
    return ACTIVATIONS[activation](gate) * up


ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "silu": lambda x: x * sigmoid(x),
    "gelu": composed.exact_gelu,
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh"), gelu),
    "relu2": lambda x: relu(x) * relu(x),
}


@dataclass(frozen=True, eq=False)
class XIELU(Part):
    """``a x^2 + x/2`` above zero, ``b (exp(x) - 1 - x) + x/2`` below (Huang and Schlag, arXiv
    2411.13010).

    Its two numbers, ``alpha_p`` and ``alpha_n``, give ``a = softplus(alpha_p)`` and
    ``b = 1/2 + softplus(alpha_n)``.
    """

    def __call__(self, x: Any) -> Any:
        a, b = np.logaddexp(self.alpha_p, 0), np.logaddexp(self.alpha_n, 0) + 0.5
        below = (np.expm1(np.minimum(x, -1e-6)) - x) * b
        return np.where(x > 0, a * x * x, below) + x * 0.5


@dataclass(frozen=True, eq=False)
class Router(Part):
    """``softmax(W x)``: how much each expert counts for a token.

    Parameters
    ----------
    W : Tensor or ndarray of shape (experts, d)
    """

    W: Tensor | Array

    def __call__(self, x: Any) -> Any:
        return softmax(x @ self.W.T)


@dataclass(frozen=True, eq=False)
class Routed(Part):
    """The sum of a few experts, by the weights of a ``router``, and perhaps of a shared one behind
    a gate.

    Parameters
    ----------
    chosen : int
        How many experts see each token.
    to_one : bool
        Whether their weights are scaled to a sum of one.
    """

    chosen: int
    to_one: bool
    shared: ClassVar[Any] = None

    def __call__(self, x: Any, *, rng: Rng = None) -> Any:
        flat = x.reshape(-1, x.shape[-1])
        every = self.router(flat)
        # (tokens, chosen)
        best = np.argsort(-value(every), axis=1, kind="stable")[:, : self.chosen]
        weights = every[np.arange(len(best))[:, np.newaxis], best]
        if self.to_one:
            weights = weights / np.sum(weights, axis=1, keepdims=True)
        # pairs of a token and an expert, by expert
        order = np.argsort(best, axis=None, kind="stable")
        starts = np.searchsorted(best.ravel()[order], np.arange(every.shape[1] + 1))
        rows = flat[order // self.chosen]
        parts = [
            self.experts(rows[starts[i] : starts[i + 1]], i)
            for i in np.flatnonzero(np.diff(starts))
        ]
        each = np.concatenate(parts)[np.argsort(order)].reshape(*best.shape, -1)
        y = np.sum(each * weights[..., np.newaxis], axis=1)
        if self.shared is not None:
            y = y + sigmoid(self.shared_gate(flat, rng=rng)) * self.shared(flat, rng=rng)
        return y.reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Experts(Part):
    """Gated MLPs in two arrays: ``gate_up_proj`` (experts, 2 inner, d), ``down_proj`` (experts, d,
    inner).
    """

    activation: str

    def __call__(self, x: Any, i: int) -> Any:
        gate, up = np.split(x @ self.gate_up[i].T, 2, axis=-1)
        return gated(gate, up, self.activation, fast=True) @ self.down[i].T


def unchanged(x: Any) -> Any:
    return x


@dataclass(frozen=True, eq=False)
class DecoderLayer(Part):
    """``x = x + attention(norm(x)); x = x + mlp(norm(x))``, with norms before or after, or both at
    once.

    Parameters
    ----------
    parallel : bool
        Whether the MLP sees the same x as attention.
    residual : float
        A factor on what each of the two adds.
    """

    parallel: bool = False
    residual: float = 1.0
    before_attention = after_attention = before_mlp = after_mlp = staticmethod(unchanged)

    def __call__(self, x: Any, *, rng: Rng = None, **how: Any) -> Any:
        y = self.after_attention(self.attention(self.before_attention(x), rng=rng, **how))
        added = x + (y if self.residual == 1.0 else y * self.residual)
        y = self.after_mlp(self.mlp(self.before_mlp(x if self.parallel else added), rng=rng))
        return added + (y if self.residual == 1.0 else y * self.residual)
