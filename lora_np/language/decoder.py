"""Build decoders of many families as trees whose paths are the module names of transformers.

A ``config.json`` and the family's data file determine which modules a decoder has and how it
computes. A field that would change the computation in an unsupported way is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace as changed
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lora_np.checks import Array, Rng, choice, shown, whole_number
from lora_np.files import errors_at
from lora_np.language import blocks
from lora_np.language.blocks import Cache
from lora_np.language.composed import Operand
from lora_np.language.rotary import Rotary, rotary_of, stated
from lora_np.language.vocabulary import Vocabulary
from lora_np.models import DecoderNode, LayerConfig, ModelSpec, ModuleSpec, decoder_of
from lora_np.nn import Embedding, Linear, Named, join, replace

T = TypeVar("T")
# maps a tensor's name to an array, a Tensor or a quantised weight, or to None if it is missing
Read = Callable[[str], Any]
CONTEXT = 2048  # context length in tokens if the config has none

# Maps config fields to the values that leave the computation unchanged. In a model that does not
# support a field, the field must have this value or be null.
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
}
ACTIVATION = ("hidden_act", "hidden_activation", "activation_function")


@dataclass(frozen=True, eq=False, kw_only=True)
class Decoder(Named):
    """A decoder without its head: embeddings, layers and a final norm.

    Parameters
    ----------
    scale : float
        A factor on the embedding (Gemma: sqrt(d)).
    scale_after : float
        A factor on the final hidden states, and therefore on the logits.
    """

    scale: float = 1.0
    scale_after: float = 1.0
    embedding: Embedding
    position: Embedding | None = None
    layers: tuple[blocks.DecoderLayer, ...]
    norm: blocks.RMSNorm | blocks.LayerNorm

    @np.errstate(under="ignore")
    def __call__(
        self,
        tokens: Array,
        *,
        rng: Rng = None,
        caches: list[Cache] | None = None,
        sequence_ids: Array | None = None,
        last: bool = False,
    ) -> Operand:
        before = caches[0].tokens if caches else 0
        packed = None if sequence_ids is None else blocks.sequences(sequence_ids, before)
        where = packed.positions if packed else np.arange(before, before + tokens.shape[1])
        x = self.embedded(tokens, where)
        for i, layer in enumerate(self.layers):
            cache = None if caches is None else caches[i]
            # if only the last token is needed, the last layer skips the outputs of earlier tokens
            only = last and i + 1 == len(self.layers)
            x = layer(x, rng=rng, cache=cache, packed=packed, last=only)
        x = self.norm(x)
        return x if self.scale_after == 1.0 else x * self.scale_after

    def embedded(self, tokens: Array, positions: Array) -> Operand:
        """Embed tokens at the given positions, as the input of the first layer."""
        x = self.embedding(tokens)
        if self.scale != 1.0:
            x = x * self.scale
        return x if self.position is None else x + self.position(positions)


@dataclass(frozen=True, eq=False, kw_only=True)
class LanguageModel(Named):
    """A language model: a decoder, and a head that turns hidden states into next-token logits.

    `load` reads it from a checkpoint, and `build` makes it from any arrays.

    Parameters
    ----------
    names : mapping of str to str
        Transformers' names of ``model`` and ``lm_head``; every node of the tree has such names.
    config : mapping
        The contents of its ``config.json``.
    vocabulary : object, optional
        The vocabulary, with `encode` and `decode`.
    generation : mapping
        The contents of its ``generation_config.json``, if there is one.
    context : int
        The context length: the number of tokens of the longest text that the model supports.
    cap : float
        If not 0, logits x become ``cap tanh(x / cap)``.
    model : Decoder
        The decoder, from tokens to hidden states.
    lm_head : Linear
        The head, from hidden states to logits; if it is tied, its W is the embedding's.
    """

    config: Mapping[str, Any]
    vocabulary: Vocabulary | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    context: int = 0
    cap: float = 0.0
    model: Decoder
    lm_head: Linear

    def __call__(
        self,
        tokens: Array,
        *,
        rng: Rng = None,
        caches: list[Cache] | None = None,
        sequence_ids: Array | None = None,
    ) -> Operand:
        """Compute the logits, of shape (batch, tokens, vocab).

        Parameters
        ----------
        tokens : ndarray of int, shape (batch, tokens)
        rng : Generator, optional
            A generator, which switches dropout on.
        caches : list of Cache, optional
            One cache for each layer, with the keys and values of earlier tokens.
        sequence_ids : ndarray of int, shape (batch, tokens), optional
            The sequence of each token, beginning with the cached tokens, if rows hold several
            sequences: a token sees only its own. Padding is a sequence like any other, so an
            attention mask of zeros and ones is valid too.
        """
        hidden = self.model(tokens, rng=rng, caches=caches, sequence_ids=sequence_ids)
        return self.logits(hidden, rng=rng)

    def logits(self, hidden: Operand, *, rng: Rng = None) -> Operand:
        """Compute logits from the hidden states that ``model`` returns."""
        z = self.lm_head(hidden, rng=rng)
        return self.cap * np.tanh(z / self.cap) if self.cap else z


def vocabulary_of(model: LanguageModel) -> Vocabulary:
    if model.vocabulary is None:
        raise ValueError(
            "this model has no vocabulary: there was no tokenizer.json in its directory"
        )
    return model.vocabulary


def build(
    config: Mapping[str, Any], read: Read, *, vocabulary: Vocabulary | None = None
) -> LanguageModel:
    """Build a model with the modules of ``config`` and the arrays that ``read`` returns.

    Parameters
    ----------
    config : mapping
        The contents of a ``config.json``.
    read : callable
        ``read(name)`` returns the array of a parameter by its name and in its shape in
        transformers, or None if there is none.
    vocabulary : object, optional
        The vocabulary, with `encode` and `decode`.

    Returns
    -------
    LanguageModel
        The model with these arrays: a Tensor is trainable, an ndarray is frozen.

    Raises
    ------
    ValueError
        If the family is not supported, or an array is missing or has the wrong shape.

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
    embeddings: list[Embedding] = []

    def array(name: str, shape: tuple[int, ...]) -> Any:
        weight = read(name)
        if weight is None:
            raise ValueError(f"the checkpoint has no tensor {name}")
        if weight.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} to fit config.json, got {weight.shape}"
            )
        return weight

    def leaf(module: ModuleSpec) -> Any:
        name, shape = module.name, module.shape
        if module.kind in ("parameter", "experts"):
            return array(name, shape)
        W: Any
        if module.tied:
            W = embeddings[0].W
        elif module.transposed:
            W = array(f"{name}.weight", shape[::-1]).T
        else:
            W = array(f"{name}.weight", shape)
        if module.kind == "linear":
            return Linear(W, read(f"{name}.bias"))  # `read` returns None for a missing bias
        if module.kind == "embedding":
            embeddings.append(Embedding(W))
            return embeddings[-1]
        if module.kind == "router":
            return blocks.Router(W)
        if s.whole.norm == "rms":
            return blocks.RMSNorm(W, s.whole.eps, s.whole.from_one)
        b = array(f"{name}.bias", shape) if module.bias else None
        return blocks.LayerNorm(W, b, s.whole.eps)

    def node(path: str, i: int | None = None) -> Any:
        """Build the module at a path, which is in layer i unless i is None."""
        if path in modules:
            return leaf(modules[path])
        kind, names = s.nodes[path]
        if kind == "list":
            places = enumerate(names.values())
            return tuple(node(join(path, name), n if i is None else i) for n, name in places)
        built = {name: node(join(path, name), i) for name in dict.fromkeys(names.values())}
        parts = {role: built[name] for role, name in names.items()}
        if kind == "model":
            return LanguageModel(
                names={"model": names["model"], "lm_head": names["head"]},
                config=dict(config), vocabulary=vocabulary, context=s.context,
                cap=s.whole.logit_cap, model=parts["model"], lm_head=parts["head"],
            )  # fmt: skip
        make, settings = MAKERS[kind], s.settings(kind, names, i or 0)
        return make(names=names, **settings, **parts)

    model: LanguageModel = node("")
    return model


MAKERS: Mapping[str, Callable[..., Named]] = {
    "decoder": Decoder,
    "layer": blocks.DecoderLayer,
    "attention": blocks.SelfAttention,
    "mlp": blocks.MLP,
    "routed": blocks.Routed,
    "experts": blocks.Experts,
    "xielu": blocks.XIELU,
    "head_norms": blocks.HeadNorms,
}


class DecoderSettings(NamedTuple):
    """The settings of a decoder, as determined by its config.

    Parameters
    ----------
    whole : LayerConfig
        The settings that are the same for all layers.
    layers : list of LayerConfig
        The settings of each layer.
    rotary : list of Rotary or None
        The rotary embedding of each layer; None without one.
    nodes : mapping of str to DecoderNode
        The block at each path above a module.
    spec : ModelSpec
        The modules.
    embedding : str
        The name of the module that embeds tokens.
    tied : bool
        Whether another module shares its weight.
    context : int
        The context length in tokens.
    """

    whole: LayerConfig
    layers: list[LayerConfig]
    rotary: list[Rotary | None]
    nodes: Mapping[str, DecoderNode]
    spec: ModelSpec
    embedding: str
    tied: bool
    context: int

    @property
    def constants(self) -> dict[str, float]:
        """The constants that a checkpoint stores in addition to weights, by name."""
        return {name: number for layer in self.layers for name, number in layer.constants.items()}

    def settings(self, kind: str, names: Mapping[str, str], i: int) -> dict[str, Any]:
        """Return the settings of a block in layer i; ``names`` maps its fields to module names."""
        whole = self.whole
        if kind == "decoder":
            return {"scale": whole.scale, "scale_after": whole.logits}
        if kind == "layer":
            return {"parallel": whole.parallel, "residual": whole.residual}
        if kind == "routed":
            return {"chosen": whole.chosen, "to_one": whole.routed_sum}
        if kind in ("mlp", "experts"):
            return {"activation": whole.activation}
        if kind != "attention":
            return {}
        layer = self.layers[i]
        same = ("heads", "score", "score_cap", "joined", "normed_first")
        return {name: getattr(layer, name) for name in same} | {
            "kv": layer.kv_heads,
            "window": layer.window or None,
            "rotary": self.rotary[i],
            "normed": layer.normed if "query_norm" in names else "",
        }


def decoder_settings(config: Mapping[str, Any]) -> DecoderSettings:
    """Read the settings of a decoder from a config.

    Parameters
    ----------
    config : mapping
        The contents of ``config.json``.

    Returns
    -------
    DecoderSettings
        The settings of all layers, the modules and the context length.

    Raises
    ------
    ValueError
        If the family cannot be run, or a field is invalid or changes the computation in an
        unsupported way.
    """
    with errors_at("config.json", (TypeError, ValueError)):
        # call `decoder_of` before nulls are dropped, because null may differ from a missing field
        decoder = decoder_of(config)
        facts, read, spec = decoder.whole, decoder.fields, decoder.spec
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
        kinds = {node.kind for node in decoder.nodes.values()}
        if "cross_attention" in kinds:
            raise ValueError("add_cross_attention must be false; no other is understood, got True")
        choice(named, facts.activation, ["xielu"] if "xielu" in kinds else [*blocks.ACTIVATIONS])
        positions = facts.positions or config.get("max_position_embeddings", CONTEXT)
        context = whole_number("max_position_embeddings", positions)
        embedding = next(module.name for module in spec.groups if module.role == "embedding")
        rotary = [rotary_of(config, layer, context) for layer in decoder.layers]
        tied = any(module.tied for module in spec.groups)
        return DecoderSettings(
            facts, decoder.layers, rotary, decoder.nodes, spec, embedding, tied, context
        )


def composed_operations(model: T) -> T:
    """Return the model with ``composed`` operations in its RMS norms, attention and MLPs.

    These are slower than the fused primitives, which are tested against them. The experts of a
    mixture, and the loss of a frozen head, keep the fused primitives.

    Parameters
    ----------
    model : tree
        The model, which is not changed.

    Returns
    -------
    tree
        A model that shares the arrays, and computes the same up to rounding.

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
