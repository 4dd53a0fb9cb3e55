"""What a layer of a decoder is made of: norms, attention, MLPs and experts, whatever a family calls them.

A node's fields are called as transformers calls its modules, so that a path in the tree is the name there.
The equations know them by their roles: `named` makes the class that has both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, make_dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lora_np.autograd import Tensor, value
from lora_np.checks import Array
from lora_np.language import composed, fused
from lora_np.language.rotary import GROWING, Rotary
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
    ways: dict[str, Any] = {role: property(attrgetter(name)) for role, name in roles if role != name}
    return make_dataclass(
        kind.__name__,
        [(name, Any) for name in names],
        bases=(kind,),
        namespace={**ways, "__module__": kind.__module__},
        frozen=True,
        eq=False,
        kw_only=True,
    )


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

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None) -> Any:
        norm = fused.rms_norm if self.fused else composed.rms_norm
        return norm(x, self.W + 1 if self.from_one else self.W, eps=self.eps)


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """``h = W (x - mean(x)) / sqrt(var(x) + eps) + b`` over the last axis (Ba et al., arXiv 1607.06450).

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
    fused: ClassVar[bool] = True

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None) -> Any:
        x = x - np.mean(x, axis=-1, keepdims=True)
        y = self.W * (x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + self.eps))
        return y if self.b is None else y + self.b


@dataclass(frozen=True, eq=False)
class HeadNorms(Part):
    """A norm of its own for each head (StableLM)."""

    norms: tuple[LayerNorm, ...]

    def __call__(self, x: Any) -> Any:
        return np.concatenate([norm(x[..., i : i + 1, :]) for i, norm in enumerate(self.norms)], axis=-2)


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
        self.k: Array | None = None
        self.v: Array | None = None
        self.texts: Array | None = None  # of each key, where a row holds more than one text

    def extend(self, k: Array, v: Array, texts: Array | None = None) -> tuple[Array, Array]:
        """All keys and values so far, with these as the last: (batch, tokens, kv, d)."""
        start, self.tokens = self.tokens, self.tokens + k.shape[1]
        if self.k is None or self.v is None:
            self.k, self.v = np.empty((2, len(k), self.longest, *k.shape[2:]), k.dtype)
        self.k[:, start : self.tokens] = k
        self.v[:, start : self.tokens] = v
        if texts is not None:
            self.texts = texts if self.texts is None else np.concatenate([self.texts, texts], axis=1)
        return self.k[:, : self.tokens], self.v[:, : self.tokens]


def positions(tokens: int, cache: Cache | None, texts: Array | None) -> Array:
    """The place of each token in its own text: (tokens,) or (batch, tokens)."""
    before = 0 if cache is None else cache.tokens
    if texts is None:
        return np.arange(before, before + tokens)
    if cache is not None and cache.texts is not None:
        texts = np.concatenate([cache.texts, texts], axis=1)
    order, i = np.argsort(texts, axis=1, kind="stable"), np.arange(texts.shape[1])
    first = np.diff(np.take_along_axis(texts, order, axis=1), axis=1, prepend=np.nan) != 0  # of a text
    found = np.empty_like(order)
    np.put_along_axis(found, order, i - np.maximum.accumulate(np.where(first, i, 0), axis=1), axis=1)
    return found[:, before:]


@dataclass(frozen=True, eq=False)
class SelfAttention(Part):
    """``W_o softmax(s q k^T) v`` with rotated queries and keys; each key serves a group of queries.

    Its modules are linear maps for ``query``, ``key`` and ``value``, or one for all (``qkv``), and for
    ``output``; and perhaps norms of queries and keys.

    Parameters
    ----------
    heads, kv : int
        Heads of queries, and of keys and values.
    rotary : Rotary
        How positions rotate queries and keys.
    window : int, optional
        How many tokens back a query sees.
    score : float
        s, usually ``1 / sqrt(d)``.
    score_cap : float
        The scores go through ``cap tanh(x / cap)``; 0 for none.
    joined : {"parts", "heads"}
        Whether a map for all gives all queries first, then keys and values; or those of each head together.
    normed : str
        "heads" if norms see each head, "whole" if all of them; empty without norms.
    normed_first : bool
        Whether they come before the rotation.
    fused : bool
        Whether one primitive does the middle.
    """

    heads: int
    kv: int
    rotary: Rotary
    window: int | None
    score: float
    score_cap: float = 0.0
    joined: str = "parts"
    normed: str = ""
    normed_first: bool = True
    fused: bool = True
    qkv: ClassVar[Any] = None

    def __call__(
        self,
        x: Any,
        *,
        rng: np.random.Generator | None = None,
        cache: Cache | None = None,
        texts: Array | None = None,
    ) -> Any:
        if self.qkv is None:
            q, k, v = self.query(x, rng=rng), self.key(x, rng=rng), self.value(x, rng=rng)
        else:
            q, k, v = self.apart(self.qkv(x, rng=rng))
        if self.normed and self.normed_first:
            q, k = self.with_norms(q, k)
        start, stop = (0, x.shape[1]) if cache is None else (cache.tokens, cache.tokens + x.shape[1])
        at = None  # the places of tokens in their texts, where scores depend on more than distances
        if texts is not None and (self.rotary.kind in GROWING or not self.normed_first):
            at = positions(x.shape[1], cache, texts)
        cos, sin = self.rotary.turns(start, stop, x.dtype, None if at is None else int(at.max()) + 1)
        if self.rotary.moved:
            q, k = self.on_heads(self.rotary.halves, self.rotary.halves, q, k)
        if not self.normed_first:
            own = [cos, sin]
            if at is not None:
                own = [table[at] for table in self.rotary.turns(0, int(at.max()) + 1, x.dtype)]
            turn = functools.partial(composed.rotate, cos=own[0], sin=own[1])
            q, k = self.with_norms(*self.on_heads(turn, turn, q, k))
            cos, sin = np.ones_like(cos), np.zeros_like(sin)
        if cache is not None:
            both = heads_of(np.concatenate([q, k], axis=-1), self.heads + self.kv)
            turned = composed.rotate(both, cos, sin)  # at once: for a single token calls are what costs
            keys, values = cache.extend(turned[..., self.heads :, :], heads_of(v, self.kv), texts)
        how: dict[str, Any] = {"window": self.window, "scale": self.score}
        if self.score_cap:
            how["cap"] = self.score_cap
        fast = self.fused and not self.score_cap
        if cache is None or (fast and start == 0 and x.shape[1] > 1):
            attention = fused.attention if fast else composed.attention
            mixed = attention(q, k, v, cos=cos, sin=sin, heads=self.heads, kv=self.kv, texts=texts, **how)
        else:
            parts = []
            for i in range(0, x.shape[1], fused.BLOCK):  # some queries of a long prompt at a time
                end = min(start + i + fused.BLOCK, stop)
                seen = None if cache.texts is None else cache.texts[:, :end]
                asked = turned[:, i : i + fused.BLOCK, : self.heads]
                some = asked, keys[:, :end], values[:, :end]
                parts.append(composed.attend(*some, texts=seen, **how))
            mixed = np.concatenate(parts, axis=1)
        return self.output(mixed, rng=rng)

    def apart(self, qkv: Any) -> tuple[Any, Any, Any]:
        """Queries, keys and values from what one map gives."""
        if self.joined == "heads":
            each = qkv.reshape(*qkv.shape[:2], self.heads, 3, -1)
            q, k, v = (each[..., i, :].reshape(*qkv.shape[:2], -1) for i in range(3))
            return q, k, v
        width = qkv.shape[-1] // (self.heads + 2 * self.kv)
        first, last = self.heads * width, (self.heads + self.kv) * width
        return qkv[..., :first], qkv[..., first:last], qkv[..., last:]

    def with_norms(self, q: Any, k: Any) -> tuple[Any, Any]:
        if self.normed == "whole":
            return self.query_norm(q), self.key_norm(k)
        return self.on_heads(self.query_norm, self.key_norm, q, k)

    def on_heads(self, f: Any, g: Any, q: Any, k: Any) -> tuple[Any, Any]:
        """For the heads of queries f, and for those of keys g."""
        return f(heads_of(q, self.heads)).reshape(q.shape), g(heads_of(k, self.kv)).reshape(k.shape)


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

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None) -> Any:
        if self.gate_up is not None:
            both = self.gate_up(x, rng=rng)
            half = both.shape[-1] // 2
            gate, up = both[..., :half], both[..., half:]
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
    "gelu_new": gelu,
    "gelu_pytorch_tanh": gelu,
    "relu2": lambda x: relu(x) * relu(x),
}


@dataclass(frozen=True, eq=False)
class XIELU(Part):
    """``a x^2 + x/2`` above zero, ``b (exp(x) - 1 - x) + x/2`` below (Huang and Schlag, arXiv 2411.13010).

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
    """The sum of a few experts, by the weights of a ``router``, and perhaps of a shared one behind a gate.

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

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None) -> Any:
        flat = x.reshape(-1, x.shape[-1])
        every = self.router(flat)
        best = np.argsort(-value(every), axis=1, kind="stable")[:, : self.chosen]  # (tokens, chosen)
        weights = every[np.arange(len(best))[:, np.newaxis], best]
        if self.to_one:
            weights = weights / np.sum(weights, axis=1, keepdims=True)
        order = np.argsort(best, axis=None, kind="stable")  # pairs of a token and an expert, by expert
        starts = np.searchsorted(best.ravel()[order], np.arange(every.shape[1] + 1))
        rows = flat[order // self.chosen]
        parts = [self.experts(rows[starts[i] : starts[i + 1]], i) for i in np.flatnonzero(np.diff(starts))]
        each = np.concatenate(parts)[np.argsort(order)].reshape(*best.shape, -1)
        y = np.sum(each * weights[..., np.newaxis], axis=1)
        if self.shared is not None:
            y = y + sigmoid(self.shared_gate(flat, rng=rng)) * self.shared(flat, rng=rng)
        return y.reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Experts(Part):
    """Gated MLPs in two arrays: ``gate_up_proj`` (experts, 2 inner, d), ``down_proj`` (experts, d, inner)."""

    activation: str

    def __call__(self, x: Any, i: int) -> Any:
        both = x @ self.gate_up[i].T
        half = both.shape[-1] // 2
        return gated(both[..., :half], both[..., half:], self.activation, fast=True) @ self.down[i].T


@dataclass(frozen=True, eq=False)
class DecoderLayer(Part):
    """``x = x + attention(norm(x)); x = x + mlp(norm(x))``, with norms before or after, or both at once.

    Parameters
    ----------
    parallel : bool
        Whether the MLP sees the same x as attention.
    residual : float
        A factor on what each of the two adds.
    """

    parallel: bool = False
    residual: float = 1.0
    before_attention: ClassVar[Any] = None
    after_attention: ClassVar[Any] = None
    before_mlp: ClassVar[Any] = None
    after_mlp: ClassVar[Any] = None

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None, **how: Any) -> Any:
        y = x if self.before_attention is None else self.before_attention(x)
        y = self.attention(y, rng=rng, **how)
        y = y if self.after_attention is None else self.after_attention(y)
        added = x + (y if self.residual == 1.0 else y * self.residual)
        seen = x if self.parallel else added
        y = self.mlp(seen if self.before_mlp is None else self.before_mlp(seen), rng=rng)
        y = y if self.after_mlp is None else self.after_mlp(y)
        return added + (y if self.residual == 1.0 else y * self.residual)
