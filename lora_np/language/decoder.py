"""Decoders of many families as trees: a path in one is the name that transformers has for that
module.

What they are made of, and how they compute, is in a ``config.json`` and their family's data. A
field that would change the computation and is not understood is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace as changed
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar, TypeVar

import numpy as np

from lora_np.autograd import Tensor
from lora_np.checks import Array, Rng, choice, shown, whole_number
from lora_np.files import errors_at
from lora_np.language import blocks
from lora_np.language.blocks import Cache, Part
from lora_np.language.rotary import rotary_of, stated
from lora_np.models import ModuleSpec, decoder_of
from lora_np.nn import Embedding, Linear, join, replace

T = TypeVar("T")
Read = Callable[[str], Array | Tensor | None]  # the array of this name, if there is one
CONTEXT = 2048  # tokens, where a config does not say
# Fields that make some model compute differently, and the neutral value; null is always neutral.
NEUTRAL: Mapping[str, Any] = {
    **dict.fromkeys(("attention_chunk_size", "no_rope_layers", "sliding_window", "clip_qkv")),
    **dict.fromkeys(("attention_multiplier", "attn_logit_softcapping", "final_logit_softcapping")),
    **dict.fromkeys(
        ("embedding_multiplier", "residual_multiplier", "logit_scale", "logits_scaling"), 1
    ),
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct"), 1),
    **dict.fromkeys(("is_causal", "scale_attn_weights"), True),
    **dict.fromkeys(("use_bidirectional_attention", "use_sliding_window", "use_qk_norm"), False),
    **dict.fromkeys(
        ("add_cross_attention", "alibi", "use_parallel_residual", "output_router_logits"), False
    ),
    **dict.fromkeys(("qk_layernorm", "scale_attn_by_inverse_layer_idx"), False),
    "router_jitter_noise": 0,
}
ACTIVATION = ("hidden_act", "hidden_activation", "activation_function")


@dataclass(frozen=True, eq=False)
class Decoder(Part):
    """The embedding of the tokens, and perhaps of their positions; the layers; and a last norm.

    Parameters
    ----------
    scale : float
        A factor on the embedding (Gemma: sqrt(d)).
    scale_after : float
        A factor on the hidden states, and so on the logits.
    """

    scale: float = 1.0
    scale_after: float = 1.0
    position: ClassVar[Any] = None

    def __call__(
        self,
        tokens: Array,
        *,
        rng: Rng = None,
        caches: list[Cache] | None = None,
        texts: Array | None = None,
    ) -> Any:
        x = self.embedding(tokens)
        if self.scale != 1.0:
            x = x * self.scale
        if self.position is not None:
            before = caches[0].tokens if caches else 0
            x = x + self.position(blocks.positions(before, tokens.shape[1], texts))
        for i, layer in enumerate(self.layers):
            x = layer(x, rng=rng, cache=None if caches is None else caches[i], texts=texts)
        x = self.norm(x)
        return x if self.scale_after == 1.0 else x * self.scale_after


@dataclass(frozen=True, eq=False)
class LanguageModel(Part):
    """Logits of the next token, at each token of a text: ``lm_head(model(tokens))``.

    Made by `load`, or from scratch by `build`. Its modules are the decoder, which is also ``model``
    in the families that call it otherwise, and ``lm_head``; with a tied head, its W is the
    embedding's.

    Parameters
    ----------
    config : mapping
        The contents of its ``config.json``.
    vocabulary : object, optional
        Between text and tokens: `encode` and `decode`.
    generation : mapping
        The contents of its ``generation_config.json``, if there is one.
    context : int
        Tokens of the longest text that the model was made for.
    cap : float
        The logits go through ``cap tanh(x / cap)``; 0 for none.
    """

    config: Mapping[str, Any]
    vocabulary: Any = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    context: int = 0
    cap: float = 0.0

    def __call__(
        self,
        tokens: Array,
        *,
        rng: Rng = None,
        caches: list[Cache] | None = None,
        texts: Array | None = None,
    ) -> Any:
        """Logits of shape (batch, tokens, vocab).

        Parameters
        ----------
        tokens : ndarray of int, shape (batch, tokens)
        rng : Generator, optional
            Switches dropout on.
        caches : list of Cache, optional
            One for each layer, with the tokens before these.
        texts : ndarray of int, shape (batch, tokens), optional
            Which text each token belongs to, those in the caches first, where a row holds more than
            one: a token sees only its own. Padding is a text like any other, so an attention mask
            of zeros and ones can be given as it is.
        """
        return self.logits(self.model(tokens, rng=rng, caches=caches, texts=texts), rng=rng)

    def logits(self, hidden: Any, *, rng: Rng = None) -> Any:
        """Logits from the hidden states that ``model`` gives."""
        z = self.lm_head(hidden, rng=rng)
        return self.cap * np.tanh(z / self.cap) if self.cap else z


def vocabulary_of(model: LanguageModel) -> Any:
    if model.vocabulary is None:
        raise ValueError(
            "this model has no vocabulary: there was no tokenizer.json in its directory"
        )
    return model.vocabulary


def build(config: Mapping[str, Any], read: Read, *, vocabulary: Any = None) -> LanguageModel:
    """A model with the shapes of ``config`` and the arrays that ``read`` gives for their names.

    Parameters
    ----------
    config : mapping
        The contents of a ``config.json``.
    read : callable
        ``read(name)`` gives the array of a parameter, as transformers calls it and keeps it, or
        None if there is none.
    vocabulary : object, optional
        Between text and tokens.

    Returns
    -------
    LanguageModel
        With the arrays as they are: a Tensor is trained, an ndarray is frozen.

    Raises
    ------
    ValueError
        If the family is not understood, or an array is missing or of another shape than the config
        says.

    Examples
    --------
    >>> from lora_np.hub import located
    >>> from lora_np.models import open_model
    >>> files = open_model(located("austen"))
    >>> model = build(files.config, lambda name: files.read(name) if name in files else None)
    >>> model(np.array([[1, 2, 3]])).shape  # logits of each token's successor
    (1, 3, 96)
    """
    s = decoder_settings(config)
    modules = {module.name: module for module in s.spec.modules}
    found: dict[str, Any] = {}

    def array(name: str, shape: tuple[int, ...]) -> Any:
        read_one = read(name)
        if read_one is None:
            raise ValueError(f"the checkpoint has no tensor {name}")
        if read_one.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} to fit config.json, got {read_one.shape}"
            )
        return read_one

    for name, module in modules.items():
        if module.kind in ("parameter", "experts"):
            found[name] = array(name, module.shape)
            continue
        turned = module.shape[::-1] if module.transposed else module.shape
        W = found[s.embedding].W if module.tied else array(f"{name}.weight", turned)
        # a checkpoint decides whether a linear map has a bias
        b = read(f"{name}.bias") if module.kind == "linear" else None
        if module.bias and module.kind == "norm":
            b = array(f"{name}.bias", module.shape)
        found[name] = layer_of(module, W.T if module.transposed else W, b, s)
    whole = {"config": MappingProxyType(dict(config)), "vocabulary": vocabulary}
    model: LanguageModel = grown(found, modules, s, **whole)
    return model


def decoder_settings(config: Mapping[str, Any]) -> SimpleNamespace:
    """What a decoder needs from a config, under the names in its family's data.

    Parameters
    ----------
    config : mapping
        The contents of ``config.json``.

    Returns
    -------
    SimpleNamespace
        The variables of the family and what its table ``decoder`` says; in ``layers``, the same for
        each layer, with its ``rotary``; ``spec``, its modules; ``embedding``, the name of one; and
        ``context``.

    Raises
    ------
    ValueError
        If the family cannot be run, a field does not fit, or one that would change the computation
        is not understood.
    """
    with errors_at("config.json", (TypeError, ValueError)):
        # where null may mean something else than missing
        decoder = decoder_of(config)
        facts, read, spec = decoder.whole, decoder.read, decoder.spec
        config = stated(config)
        same = {
            "layer_types": ["full_attention"] * len(decoder.layers),
            **dict.fromkeys(ACTIVATION, facts.activation),
        }
        for name, neutral in {**NEUTRAL, **same}.items():
            if name not in read and config.get(name, neutral) != neutral:
                right = (
                    f"{json.dumps(neutral)} in a {config['model_type']} model; no other is"
                    " understood"
                )
                raise ValueError(f"{name} must be {right}, got {shown(config[name])}")
        named = next(name for name in ACTIVATION if name in read)
        choice(
            named,
            facts.activation,
            ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu2", "xielu"),
        )
        positions = facts.positions or config.get("max_position_embeddings", CONTEXT)
        context = whole_number("max_position_embeddings", positions)
        embedding = next(module.name for module in spec.groups if module.role == "embedding")
        layers = [
            SimpleNamespace(**layer._asdict(), rotary=rotary_of(config, layer, context))
            for layer in decoder.layers
        ]
        constants = {name: number for layer in layers for name, number in layer.constants.items()}
        tied = any(module.tied for module in spec.groups)
        found = {"constants": constants, "layers": layers, "context": context, "spec": spec}
        found |= {"nodes": decoder.nodes, "embedding": embedding, "tied": tied}
        return SimpleNamespace(**{**facts._asdict(), **found})


def layer_of(module: ModuleSpec, W: Any, b: Any, s: SimpleNamespace) -> Any:
    """What computes with the weights of a module."""
    if module.kind == "linear":
        return Linear(W, b)
    if module.kind == "embedding":
        return Embedding(W)
    if module.kind == "router":
        return blocks.Router(W)
    return (
        blocks.RMSNorm(W, s.eps, s.from_one) if s.norm == "rms" else blocks.LayerNorm(W, b, s.eps)
    )


def grown(
    found: dict[str, Any], modules: Mapping[str, ModuleSpec], s: SimpleNamespace, **whole: Any
) -> Any:
    """The tree of the layers by their paths; its nodes are what the family's data say."""

    def node(path: str) -> Any:
        if path in found:
            return found[path]
        kind, names = s.nodes[path]
        parts = {name: node(join(path, name)) for name in dict.fromkeys(names.values())}
        if kind == "list":
            return tuple(parts.values())
        layer = s.layers[next((int(part) for part in path.split(".") if part.isdecimal()), 0)]
        settings: dict[str, Any] = {}
        if kind == "model":
            settings = {"cap": s.logit_cap, "context": s.context, **whole}
        elif kind == "decoder":
            settings = {"scale": s.scale, "scale_after": s.logits}
        elif kind == "layer":
            settings = {"parallel": s.parallel, "residual": s.residual}
        elif kind == "attention":
            same = ("heads", "score", "score_cap", "joined", "normed_first", "rotary")
            settings = {name: getattr(layer, name) for name in same}
            settings |= {"kv": s.kv_heads, "window": layer.window or None}
            settings["normed"] = layer.normed if "query_norm" in names else ""
        elif kind == "routed":
            settings = {"chosen": s.chosen, "to_one": s.routed_sum}
        elif kind in ("mlp", "experts"):
            settings = {"activation": s.activation}
        return blocks.named(KINDS[kind], tuple(parts), tuple(names.items()))(**settings, **parts)

    return node("")


KINDS: Mapping[str, type] = {
    "model": LanguageModel,
    "decoder": Decoder,
    "layer": blocks.DecoderLayer,
    "attention": blocks.SelfAttention,
    "mlp": blocks.MLP,
    "routed": blocks.Routed,
    "experts": blocks.Experts,
    "xielu": blocks.XIELU,
    "head_norms": blocks.HeadNorms,
}


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

    Examples
    --------
    >>> from lora_np import language
    >>> austen, tokens = language.load("austen"), np.array([[5, 3, 8]])
    >>> np.allclose(composed_operations(austen)(tokens), austen(tokens), atol=1e-4)
    True
    """

    def composed(path: str, node: Any) -> Any:
        return changed(node, fused=False)

    return replace(
        replace(model, (blocks.SelfAttention, blocks.MLP), composed), blocks.RMSNorm, composed
    )
