"""A decoder of the Llama family as a tree: a path in it is the name that transformers has for that module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace as changed
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from lora_np.autograd import Tensor
from lora_np.checks import Array
from lora_np.language import composed, fused
from lora_np.language.rotary import Rotary
from lora_np.language.settings import CONTEXT, decoder_settings
from lora_np.nn import Embedding, Linear, gelu, replace

T = TypeVar("T")


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

    def extend(self, k: Array, v: Array) -> tuple[Array, Array]:
        """All keys and values so far, with these as the last: (batch, tokens, kv, d)."""
        start, self.tokens = self.tokens, self.tokens + k.shape[1]
        if self.k is None or self.v is None:
            self.k, self.v = np.empty((2, len(k), self.longest, *k.shape[2:]), k.dtype)
        self.k[:, start : self.tokens] = k
        self.v[:, start : self.tokens] = v
        return self.k[:, : self.tokens], self.v[:, : self.tokens]


@dataclass(frozen=True, eq=False)
class SelfAttention:
    """``W_o softmax(q k^T / sqrt(d)) v`` with rotated queries and keys; each key serves a group of queries.

    Parameters
    ----------
    q_proj, k_proj, v_proj, o_proj : Linear
        Or their adapted versions from `lora_np.inject`.
    heads, kv : int
        Heads of queries, and of keys and values.
    rotary : Rotary
        How positions rotate queries and keys.
    window : int, optional
        How many tokens back a query sees.
    q_norm, k_norm : RMSNorm, optional
        Over each head, before the rotation (Qwen3).
    fused : bool
        Whether one primitive does the middle.
    """

    q_proj: Any
    k_proj: Any
    v_proj: Any
    o_proj: Any
    heads: int
    kv: int
    rotary: Rotary
    window: int | None = None
    q_norm: RMSNorm | None = None
    k_norm: RMSNorm | None = None
    fused: bool = True

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None, cache: Cache | None = None) -> Any:
        q, k, v = self.q_proj(x, rng=rng), self.k_proj(x, rng=rng), self.v_proj(x, rng=rng)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = by_head(self.q_norm, q, self.heads), by_head(self.k_norm, k, self.kv)
        start = 0 if cache is None else cache.tokens
        cos, sin = self.rotary.turns(start, start + x.shape[1], x.dtype)
        if cache is not None:
            keys, values = cache.extend(composed.rotate(heads_of(k, self.kv), cos, sin), heads_of(v, self.kv))
        if cache is None or (start == 0 and x.shape[1] > 1):  # a prompt is long: by blocks
            attention = fused.attention if self.fused else composed.attention
            mixed = attention(q, k, v, cos=cos, sin=sin, heads=self.heads, kv=self.kv, window=self.window)
        else:
            q = composed.rotate(heads_of(q, self.heads), cos, sin)
            mixed = composed.attend(q, keys, values, self.window)
        return self.o_proj(mixed, rng=rng)


def heads_of(x: Any, heads: int) -> Any:
    return x.reshape(*x.shape[:-1], heads, -1)


def by_head(norm: RMSNorm, x: Any, heads: int) -> Any:
    return norm(heads_of(x, heads)).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class GatedMLP:
    """``W_down (f(W_gate x) * W_up x)`` with ``f(x) = x sigmoid(x)``, or gelu.

    Parameters
    ----------
    gate_proj, up_proj, down_proj : Linear
        Or their adapted versions from `lora_np.inject`.
    activation : {"silu", "gelu"}
    fused : bool
        Whether one primitive does the middle, for silu.
    """

    gate_proj: Any
    up_proj: Any
    down_proj: Any
    activation: str = "silu"
    fused: bool = True

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None) -> Any:
        gate, up = self.gate_proj(x, rng=rng), self.up_proj(x, rng=rng)
        if self.activation == "silu":
            inner = (fused.gated if self.fused else composed.gated)(gate, up)
        else:
            inner = gelu(gate) * up
        return self.down_proj(inner, rng=rng)


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """``x = x + attention(norm(x)); x = x + mlp(norm(x))``."""

    input_layernorm: RMSNorm
    self_attn: SelfAttention
    post_attention_layernorm: RMSNorm
    mlp: GatedMLP

    def __call__(self, x: Any, *, rng: np.random.Generator | None = None, cache: Cache | None = None) -> Any:
        x = x + self.self_attn(self.input_layernorm(x), rng=rng, cache=cache)
        return x + self.mlp(self.post_attention_layernorm(x), rng=rng)


@dataclass(frozen=True, eq=False)
class Decoder:
    """The embedding of the tokens, the layers, and a last norm.

    Parameters
    ----------
    embed_tokens : Embedding
    layers : tuple of DecoderLayer
    norm : RMSNorm
    scale : float
        A factor on the embedding (Gemma: sqrt(d)).
    """

    embed_tokens: Any
    layers: tuple[DecoderLayer, ...]
    norm: RMSNorm
    scale: float = 1.0

    def __call__(
        self, tokens: Array, *, rng: np.random.Generator | None = None, caches: list[Cache] | None = None
    ) -> Any:
        x = self.embed_tokens(tokens)
        if self.scale != 1.0:
            x = x * self.scale
        for i, layer in enumerate(self.layers):
            x = layer(x, rng=rng, cache=None if caches is None else caches[i])
        return self.norm(x)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """Logits of the next token, at each token of a text: ``lm_head(model(tokens))``.

    Made by `load`, or from scratch by `build`.

    Parameters
    ----------
    model : Decoder
        From tokens to hidden states.
    lm_head : Linear
        With a tied head, its W is the embedding's.
    config : mapping
        The contents of its ``config.json``.
    vocabulary : object, optional
        Between text and tokens: `encode` and `decode`.
    generation : mapping
        The contents of its ``generation_config.json``, if there is one.
    """

    model: Decoder
    lm_head: Any
    config: Mapping[str, Any]
    vocabulary: Any = None
    generation: Mapping[str, Any] = field(default_factory=dict)

    def __call__(
        self, tokens: Array, *, rng: np.random.Generator | None = None, caches: list[Cache] | None = None
    ) -> Any:
        return self.lm_head(self.model(tokens, rng=rng, caches=caches), rng=rng)

    @property
    def context(self) -> int:
        """Tokens of the longest text that the model was made for."""
        return int(self.config.get("max_position_embeddings") or CONTEXT)


def checkpoint_name(path: str) -> str:
    """The name in a checkpoint of the array at ``path`` in the tree: W is "weight" there, and b is "bias".

    Examples
    --------
    >>> checkpoint_name("model.layers.0.self_attn.q_proj.W")
    'model.layers.0.self_attn.q_proj.weight'
    """
    module, _, name = path.rpartition(".")
    return f"{module}.{ {'W': 'weight', 'b': 'bias'}[name] }"


def build(
    config: Mapping[str, Any],
    read: Callable[[str], Array | Tensor | None],
    *,
    vocabulary: Any = None,
) -> LanguageModel:
    """A model with the shapes of ``config`` and the arrays that ``read`` gives for their checkpoint names.

    Parameters
    ----------
    config : mapping
        The contents of a ``config.json``.
    read : callable
        ``read(name)`` gives an array, or None if there is none: the checkpoint decides which layers have a
        bias, and which heads a norm.
    vocabulary : object, optional
        Between text and tokens.

    Returns
    -------
    LanguageModel
        With the arrays as they are: a Tensor is trained, an ndarray is frozen.

    Raises
    ------
    ValueError
        If the family is not understood, or an array is missing or of another shape than the config says.
    """
    s = decoder_settings(config)
    queries, keys = s.heads * s.width, s.kv_heads * s.width

    def array(name: str, *shape: int) -> Any:
        found = read(name)
        if found is None:
            raise ValueError(f"the checkpoint has no tensor {name}")
        if found.shape != shape:
            raise ValueError(f"{name} must have shape {shape} to fit config.json, got {found.shape}")
        return found

    def linear(path: str, d: int, k: int) -> Linear:
        return Linear(array(f"{path}.weight", d, k), read(f"{path}.bias"))

    def norm(path: str, d: int) -> RMSNorm:
        return RMSNorm(array(f"{path}.weight", d), s.eps, from_one=s.from_one)

    def head_norm(path: str) -> RMSNorm | None:
        found = read(f"{path}.weight")
        return None if found is None else RMSNorm(found, s.eps)

    def layer(i: int) -> DecoderLayer:
        at = f"model.layers.{i}"
        attn, mlp = f"{at}.self_attn", f"{at}.mlp"
        return DecoderLayer(
            norm(f"{at}.input_layernorm", s.d),
            SelfAttention(
                linear(f"{attn}.q_proj", queries, s.d),
                linear(f"{attn}.k_proj", keys, s.d),
                linear(f"{attn}.v_proj", keys, s.d),
                linear(f"{attn}.o_proj", s.d, queries),
                s.heads,
                s.kv_heads,
                s.rotary[i],
                s.windows[i],
                head_norm(f"{attn}.q_norm"),
                head_norm(f"{attn}.k_norm"),
            ),
            norm(f"{at}.post_attention_layernorm", s.d),
            GatedMLP(
                linear(f"{mlp}.gate_proj", s.inner, s.d),
                linear(f"{mlp}.up_proj", s.inner, s.d),
                linear(f"{mlp}.down_proj", s.d, s.inner),
                "silu" if s.activation == "silu" else "gelu",
            ),
        )

    embedding = array("model.embed_tokens.weight", s.words, s.d)
    head = embedding if s.tied else array("lm_head.weight", s.words, s.d)
    layers = tuple(layer(i) for i in range(s.count))
    decoder = Decoder(Embedding(embedding), layers, norm("model.norm", s.d), s.scale)
    return LanguageModel(decoder, Linear(head), MappingProxyType(dict(config)), vocabulary)


def composed_operations(model: T) -> T:
    """The same model, whose norms, attention and gated units are composed of NumPy's functions.

    Slower, and the reference that the fused primitives are tested against.

    Parameters
    ----------
    model : tree
        It is not changed, and its arrays are shared.

    Returns
    -------
    tree
        Its results are the same up to rounding.
    """
    return replace(
        replace(model, (SelfAttention, GatedMLP), lambda path, node: changed(node, fused=False)),
        RMSNorm,
        lambda path, node: changed(node, fused=False),
    )
