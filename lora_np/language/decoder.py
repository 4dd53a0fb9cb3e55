"""Decoders of many families as trees: a path in one is the name of that module in transformers.

What they are made of, and how they compute, is in a ``config.json`` and their family's data. A
field that would change the computation and is not understood is refused.
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
Read = Callable[[str], Any]  # the array, Tensor or quantised weight of this name, or None
CONTEXT = 2048  # context in tokens if the config has none
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
}
ACTIVATION = ("hidden_act", "hidden_activation", "activation_function")


@dataclass(frozen=True, eq=False, kw_only=True)
class Decoder(Named):
    """Computes hidden states from tokens: embeddings, layers and a final norm.

    Parameters
    ----------
    scale : float
        A factor on the embedding (Gemma: sqrt(d)).
    scale_after : float
        A factor on the hidden states, and so on the logits.
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
        rows = None if sequence_ids is None else blocks.sequences(sequence_ids, before)
        where = np.arange(before, before + tokens.shape[1]) if rows is None else rows.positions
        x = self.embedded(tokens, where)
        for i, layer in enumerate(self.layers):
            cache = None if caches is None else caches[i]
            only = last and i + 1 == len(self.layers)  # the last layer's other tokens are not used
            x = layer(x, rng=rng, cache=cache, rows=rows, last=only)
        x = self.norm(x)
        return x if self.scale_after == 1.0 else x * self.scale_after

    def embedded(self, tokens: Array, positions: Array) -> Operand:
        """Look up the embeddings, which are the first layer's input."""
        x: Operand = self.embedding(tokens)
        if self.scale != 1.0:
            x = x * self.scale
        return x if self.position is None else x + self.position(positions)


@dataclass(frozen=True, eq=False, kw_only=True)
class LanguageModel(Named):
    """Logits of the next token, at each token of a text: ``lm_head(model(tokens))``.

    Made by `load`, or from scratch by `build`.

    Parameters
    ----------
    names : mapping of str to str
        What transformers calls ``model`` and ``lm_head``, as in each of its nodes.
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
    model : Decoder
        From tokens to hidden states.
    lm_head : Linear
        From hidden states to logits; if it is tied, its W is the embedding's.
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
        """Return the logits, of shape (batch, tokens, vocab).

        Parameters
        ----------
        tokens : ndarray of int, shape (batch, tokens)
        rng : Generator, optional
            Switches dropout on.
        caches : list of Cache, optional
            One for each layer, with the tokens before these.
        sequence_ids : ndarray of int, shape (batch, tokens), optional
            Which sequence each token belongs to, those in the caches first, where a row holds more
            than one: a token sees only its own. Padding is a sequence like any other, so an
            attention mask of zeros and ones can be given as it is.
        """
        hidden = self.model(tokens, rng=rng, caches=caches, sequence_ids=sequence_ids)
        return self.logits(hidden, rng=rng)

    def logits(self, hidden: Operand, *, rng: Rng = None) -> Operand:
        """Return the logits of the hidden states that ``model`` gives."""
        z: Operand = self.lm_head(hidden, rng=rng)
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
    """Build a model with the shapes of ``config`` and the arrays that ``read`` gives.

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
            return Linear(W, read(f"{name}.bias"))  # a checkpoint decides whether there is a bias
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
        """Build the module at a path of layer i."""
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
    """The settings of a decoder that a config determines.

    Parameters
    ----------
    whole : LayerConfig
        How all layers compute, and what is around them.
    layers : list of LayerConfig
        How each layer computes.
    rotary : list of Rotary or None
        How its queries and keys rotate, if they do.
    nodes : mapping of str to DecoderNode
        What stands at each path above a module.
    spec : ModelSpec
        The modules.
    embedding : str
        The name of the one that embeds tokens.
    tied : bool
        Whether a module shares its weight.
    context : int
        Tokens of the longest text.
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
        """List the constants that a checkpoint stores besides weights, by name."""
        return {name: number for layer in self.layers for name, number in layer.constants.items()}

    def settings(self, kind: str, names: Mapping[str, str], i: int) -> dict[str, Any]:
        """Return the settings of a node with these parts, in layer i."""
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
        What the family's data make of it.

    Raises
    ------
    ValueError
        If the family cannot be run, a field does not fit, or one that would change the computation
        is not understood.
    """
    with errors_at("config.json", (TypeError, ValueError)):
        # first, since null may mean something else than a missing field here
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
    """Return the model with norms, attention and gated units composed of NumPy's functions.

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
