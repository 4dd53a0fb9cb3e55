"""Real architectures: from the fields of a ``config.json`` to the modules that transformers builds.

One short function for each family. Names, shapes and defaults are those of transformers 5; each function's
source is the file ``models/<family>/modeling_<family>.py`` there, and the defaults come from
``configuration_<family>.py`` beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from lora_np.checks import choice, whole_number
from lora_np.hub.model import Layers, ModelSpec, ModuleSpec, stack, under


class Family(NamedTuple):
    """How a family's classes are called, which tasks they have, and what PEFT adapts by default."""

    build: Callable[[Config, str], Body]
    classes: str  # what its class names start with
    task: str  # the class that is meant if a config names none
    tasks: tuple[str, ...]
    targets: tuple[str, ...] = ()
    fused: Mapping[str, str] | None = None
    dropout: float = 0.0  # of hidden states, by default
    attention_dropout: float = 0.0


class Body(NamedTuple):
    """What a family's function returns."""

    modules: Iterable[ModuleSpec]
    layers: tuple[Layers, ...]
    head: str = ""
    experts_per_token: int = 0


def build_spec(values: Mapping[str, Any], *, name: str = "", architecture: str | None = None) -> ModelSpec:
    """The modules of a model, from the fields of its ``config.json``.

    Parameters
    ----------
    values : mapping
        The fields. ``model_type`` is needed; any other that is absent takes its default in transformers.
    name : str
        For titles; the model type if empty.
    architecture : str, optional
        A class of transformers, such as ``"LlamaForSequenceClassification"``; by default the first of the
        field ``architectures``, or else the family's usual one.

    Returns
    -------
    ModelSpec

    Raises
    ------
    ValueError
        If the family or the architecture is not known, or fields contradict one another.
    """
    family_name = str(values.get("model_type"))
    if family_name not in FAMILIES:
        raise ValueError(
            f"model_type must be one of {', '.join(sorted(FAMILIES))}, got {family_name!r}. "
            "Any other model can be counted from its *.safetensors files (headers only), or from an object "
            "with named_modules(), such as a torch model on the meta device"
        )
    family = FAMILIES[family_name]
    task = _task(family, architecture or (values.get("architectures") or [""])[0])
    config = Config(values)
    body = family.build(config, task)
    dropout = config.get(*_DROPOUT, default=family.dropout) > 0
    attention_dropout = config.get(*_ATTENTION_DROPOUT, default=family.attention_dropout) > 0
    layers = [stack._replace(dropout=dropout, attention_dropout=attention_dropout) for stack in body.layers]
    return ModelSpec(
        name or family_name,
        tuple(body.modules),
        family=family_name,
        head=body.head,
        default_targets=family.targets,
        fused=family.fused,
        layers=tuple(layers),
        experts_per_token=body.experts_per_token,
    )


class Config:
    """The fields of a config, read with their defaults and checked."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of the fields ``names`` that is present and not null."""
        for name in names:
            value = self.values.get(name)
            if value is not None:
                return value
        return default

    def size(self, *names: str, default: int, minimum: int = 1) -> int:
        """A whole number of at least ``minimum``."""
        value = self.get(*names, default=default)
        # the checked path is slow only where it must report
        if type(value) is int and value >= minimum:
            return value
        return whole_number(names[0], value, minimum=minimum)

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean."""
        value = self.get(name, default=default)
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be true or false, got {value!r}")
        return value

    def kv_heads(self, heads: int, *, default: int | None = None) -> int:
        """Key-value heads: null means as many as query heads, absent means ``default``."""
        name = "num_key_value_heads"
        usual = heads if default is None or name in self.values else default
        count = self.size(name, default=usual)
        if heads % count:
            raise ValueError(f"{name} must divide num_attention_heads = {heads}, got {count}")
        return count

    def pair(self, name: str, *, default: int) -> tuple[int, int]:
        """Height and width: one number for both, or two."""
        value = self.get(name, default=default)
        height, width = value if isinstance(value, (list, tuple)) else (value, value)
        return whole_number(name, height), whole_number(name, width)

    @property
    def tied(self) -> bool:
        """Whether the head shares the embedding's weight (where that is the default)."""
        return self.flag("tie_word_embeddings", default=True)

    @property
    def labels(self) -> int:
        """How many labels a classifier has."""
        names = self.get("id2label")
        return len(names) if names is not None else self.size("num_labels", default=2, minimum=0)


def divide(width: int, heads: int, *, names: tuple[str, str] = ("hidden_size", "num_attention_heads")) -> int:
    """The width of one head."""
    if width % heads:
        raise ValueError(f"{names[1]} must divide {names[0]} = {width}, got {heads}")
    return width // heads


def gpt2(c: Config, task: str) -> Body:
    """GPT-2, whose Conv1D holds its weight as (d_in, d_out): the same count."""
    d = c.size("n_embd", "hidden_size", default=768)
    heads = c.size("n_head", "num_attention_heads", default=12)
    count = c.size("n_layer", "num_hidden_layers", default=12, minimum=0)
    inner = c.size("n_inner", default=4 * d)
    cross = c.flag("add_cross_attention", default=False)
    width = divide(d, heads, names=("n_embd", "n_head"))
    activation = c.get("activation_function", default="gelu_new")
    layer = [
        *norms("layer", d, "ln_1"),
        linear("attn.c_attn", 3 * d, d, bias=True),
        linear("attn.c_proj", d, d, bias=True),
        *norms("layer", d, "ln_2"),
    ]
    if cross:
        layer += [
            linear("crossattention.c_attn", 2 * d, d, bias=True),
            linear("crossattention.q_attn", d, d, bias=True),
            linear("crossattention.c_proj", d, d, bias=True),
            *norms("layer", d, "ln_cross_attn"),
        ]
    layer += [linear("mlp.c_fc", inner, d, bias=True), linear("mlp.c_proj", d, inner, bias=True)]
    vocabulary = c.size("vocab_size", default=50257)
    backbone = [
        embedding("wte", vocabulary, d),
        embedding("wpe", c.size("n_positions", "max_position_embeddings", default=1024), d),
        *stack("h", range(count), layer),
        *norms("layer", d, "ln_f"),
    ]
    layers = Layers("h", count, d, heads, heads, width, width, activation, "layer", cross)
    heads_of = {
        "LMHeadModel": [linear("lm_head", vocabulary, d, tied=c.tied)],
        "DoubleHeadsModel": [
            linear("lm_head", vocabulary, d, tied=c.tied),
            linear("multiple_choice_head.summary", 1, d, bias=True),
        ],
        **classifiers(c, d),
    }
    return assemble("transformer", backbone, task, heads_of, layers)


def gpt_neox(c: Config, task: str) -> Body:
    """GPT-NeoX: fused QKV, untied head."""
    d = c.size("hidden_size", default=6144)
    heads = c.size("num_attention_heads", default=64)
    count = c.size("num_hidden_layers", default=44, minimum=0)
    inner = c.size("intermediate_size", default=24576)
    bias = c.flag("attention_bias", default=True)
    width = divide(d, heads)
    layer = [
        *norms("layer", d, "input_layernorm", "post_attention_layernorm"),
        linear("attention.query_key_value", 3 * d, d, bias=bias),
        linear("attention.dense", d, d, bias=bias),
        linear("mlp.dense_h_to_4h", inner, d, bias=True),
        linear("mlp.dense_4h_to_h", d, inner, bias=True),
    ]
    vocabulary = c.size("vocab_size", default=50432)
    backbone = [
        embedding("embed_in", vocabulary, d),
        *stack("layers", range(count), layer),
        *norms("layer", d, "final_layer_norm"),
    ]
    layers = Layers("layers", count, d, heads, heads, width, width, "gelu", "layer")
    tied = c.flag("tie_word_embeddings", default=False)
    heads_of = {"ForCausalLM": [linear("lm_head", vocabulary, d, tied=tied)], **classifiers(c, d)}
    return assemble("gpt_neox", backbone, task, heads_of, layers)


def opt(c: Config, task: str) -> Body:
    """OPT: learned positions with an offset of two, and for 350m a narrower embedding and no last norm."""
    d = c.size("hidden_size", default=768)
    heads = c.size("num_attention_heads", default=12)
    count = c.size("num_hidden_layers", default=12, minimum=0)
    inner = c.size("ffn_dim", default=3072)
    narrow = c.size("word_embed_proj_dim", default=d)
    bias = c.flag("enable_bias", default=True)
    affine = c.flag("layer_norm_elementwise_affine", default=True)
    width = divide(d, heads)
    layer = [
        *(linear(f"self_attn.{name}_proj", d, d, bias=bias) for name in ("k", "v", "q", "out")),
        *norms("layer", d, *(["self_attn_layer_norm"] if affine else [])),
        linear("fc1", inner, d, bias=bias),
        linear("fc2", d, inner, bias=bias),
        *norms("layer", d, *(["final_layer_norm"] if affine else [])),
    ]
    vocabulary = c.size("vocab_size", default=50272)
    last_norm = c.flag("do_layer_norm_before", default=True) and not c.flag(
        "_remove_final_layer_norm", default=False
    )
    backbone = [
        embedding("decoder.embed_tokens", vocabulary, narrow),
        embedding("decoder.embed_positions", c.size("max_position_embeddings", default=2048) + 2, d),
    ]
    if narrow != d:
        backbone += [linear("decoder.project_out", narrow, d), linear("decoder.project_in", d, narrow)]
    backbone += norms("layer", d, *(["decoder.final_layer_norm"] if affine and last_norm else []))
    backbone += stack("decoder.layers", range(count), layer)
    layers = Layers("decoder.layers", count, d, heads, heads, width, width, "relu", "layer")
    heads_of = {
        "ForCausalLM": [linear("lm_head", vocabulary, narrow, tied=c.tied)],
        "ForSequenceClassification": [linear("score", c.labels, narrow)],
        "ForQuestionAnswering": [linear("qa_outputs", 2, narrow, bias=True)],
    }
    return assemble("model", backbone, task, heads_of, layers)


def bloom(c: Config, task: str) -> Body:
    """BLOOM: fused QKV, ALiBi, a norm on the embeddings."""
    d = c.size("n_embed", "hidden_size", default=64)
    heads = c.size("n_head", "num_attention_heads", default=8)
    count = c.size("n_layer", "num_hidden_layers", default=2, minimum=0)
    width = divide(d, heads, names=("hidden_size", "n_head"))
    layer = [
        *norms("layer", d, "input_layernorm"),
        linear("self_attention.query_key_value", 3 * d, d, bias=True),
        linear("self_attention.dense", d, d, bias=True),
        *norms("layer", d, "post_attention_layernorm"),
        linear("mlp.dense_h_to_4h", 4 * d, d, bias=True),
        linear("mlp.dense_4h_to_h", d, 4 * d, bias=True),
    ]
    vocabulary = c.size("vocab_size", default=250880)
    backbone = [
        embedding("word_embeddings", vocabulary, d),
        *norms("layer", d, "word_embeddings_layernorm"),
        *stack("h", range(count), layer),
        *norms("layer", d, "ln_f"),
    ]
    layers = Layers("h", count, d, heads, heads, width, width, "gelu", "layer")
    heads_of = {"ForCausalLM": [linear("lm_head", vocabulary, d, tied=c.tied)], **classifiers(c, d)}
    return assemble("transformer", backbone, task, heads_of, layers)


def falcon(c: Config, task: str) -> Body:
    """Falcon: fused QKV with one key-value head, a few, or as many as query heads."""
    d = c.size("n_embed", "hidden_size", default=4544)
    heads = c.size("num_attention_heads", default=71)
    count = c.size("num_hidden_layers", default=32, minimum=0)
    inner = c.size("ffn_hidden_size", default=4 * d)
    bias = c.flag("bias", default=False)
    width = divide(d, heads)
    grouped = c.flag("new_decoder_architecture", default=False)
    if grouped:
        kv_heads = c.size("num_kv_heads", default=heads)
        if heads % kv_heads:
            raise ValueError(f"num_kv_heads must divide num_attention_heads = {heads}, got {kv_heads}")
    else:
        kv_heads = 1 if c.flag("multi_query", default=True) else heads
    parallel = c.flag("parallel_attn", default=True)
    two_norms = c.size("num_ln_in_parallel_attn", default=2 if grouped else 1) == 2
    if not parallel:
        names = ["post_attention_layernorm", "input_layernorm"]
    else:
        names = ["ln_attn", "ln_mlp"] if two_norms else ["input_layernorm"]
    layer = [
        linear("self_attention.query_key_value", (heads + 2 * kv_heads) * width, d, bias=bias),
        linear("self_attention.dense", d, d, bias=bias),
        linear("mlp.dense_h_to_4h", inner, d, bias=bias),
        linear("mlp.dense_4h_to_h", d, inner, bias=bias),
        *norms("layer", d, *names),
    ]
    vocabulary = c.size("vocab_size", default=65024)
    backbone = [
        embedding("word_embeddings", vocabulary, d),
        *stack("h", range(count), layer),
        *norms("layer", d, "ln_f"),
    ]
    layers = Layers("h", count, d, heads, kv_heads, width, width, "gelu", "layer")
    heads_of = {"ForCausalLM": [linear("lm_head", vocabulary, d, tied=c.tied)], **classifiers(c, d)}
    return assemble("transformer", backbone, task, heads_of, layers)


def bert(c: Config, task: str) -> Body:
    """BERT."""
    d, backbone, layers = encoder(c, vocabulary=30522)
    vocabulary = c.size("vocab_size", default=30522)
    pair = linear("cls.seq_relationship", 2, d, bias=True)
    words = masked_head(c, vocabulary, d, "cls.predictions", "cls.predictions.transform", "LayerNorm")
    heads_of = {
        "ForPreTraining": [*words, pair],
        "ForNextSentencePrediction": [pair],
        "ForMaskedLM": words,
        "LMHeadModel": words,
        **encoder_classifiers(c, d),
    }
    pooled = (
        "Model",
        "ForPreTraining",
        "ForNextSentencePrediction",
        "ForSequenceClassification",
        "ForMultipleChoice",
    )
    if task in pooled:
        backbone.append(linear("pooler.dense", d, d, bias=True))
    return assemble("bert", backbone, task, heads_of, layers)


def roberta(c: Config, task: str) -> Body:
    """RoBERTa: BERT with a head of its own."""
    d, backbone, layers = encoder(c, vocabulary=50265)
    vocabulary = c.size("vocab_size", default=50265)
    words = masked_head(c, vocabulary, d, "lm_head", "lm_head", "layer_norm")
    heads_of = {
        "ForMaskedLM": words,
        "ForCausalLM": words,
        **encoder_classifiers(c, d),
        "ForSequenceClassification": two_layer_head(c, "classifier", d),
    }
    if task in ("Model", "ForMultipleChoice"):
        backbone.append(linear("pooler.dense", d, d, bias=True))
    return assemble("roberta", backbone, task, heads_of, layers)


def deberta_v2(c: Config, task: str) -> Body:
    """DeBERTa v2 and v3: relative positions, sometimes with a convolution and maps of their own."""
    d = c.size("hidden_size", default=1536)
    heads = c.size("num_attention_heads", default=24)
    count = c.size("num_hidden_layers", default=24, minimum=0)
    inner = c.size("intermediate_size", default=6144)
    width = c.size("attention_head_size", default=divide(d, heads))
    narrow = c.size("embedding_size", default=d)
    relative = c.flag("relative_attention", default=False)
    positions = c.size("max_position_embeddings", default=512)
    all_heads = heads * width
    layer = [
        linear(f"attention.self.{name}_proj", all_heads, d, bias=True) for name in ("query", "key", "value")
    ]
    if relative and not c.flag("share_att_key", default=False):
        kinds = c.get("pos_att_type", default=[])
        kinds = kinds.lower().split("|") if isinstance(kinds, str) else kinds
        names = {"c2p": "attention.self.pos_key_proj", "p2c": "attention.self.pos_query_proj"}
        layer += [linear(name, all_heads, d, bias=True) for kind, name in names.items() if kind in kinds]
    layer += [
        linear("attention.output.dense", d, d, bias=True),
        *norms("layer", d, "attention.output.LayerNorm"),
        linear("intermediate.dense", inner, d, bias=True),
        linear("output.dense", d, inner, bias=True),
        *norms("layer", d, "output.LayerNorm"),
    ]
    vocabulary = c.size("vocab_size", default=128100)
    types = c.size("type_vocab_size", default=0, minimum=0)
    backbone = [embedding("embeddings.word_embeddings", vocabulary, narrow)]
    if c.flag("position_biased_input", default=True):
        backbone.append(embedding("embeddings.position_embeddings", positions, narrow))
    if types:
        backbone.append(embedding("embeddings.token_type_embeddings", types, narrow))
    if narrow != d:
        backbone.append(linear("embeddings.embed_proj", d, narrow))
    backbone += [*norms("layer", d, "embeddings.LayerNorm"), *stack("encoder.layer", range(count), layer)]
    if relative:
        span = c.size("max_relative_positions", default=-1, minimum=-1)
        buckets = c.size("position_buckets", default=-1, minimum=-1)
        extent = buckets if buckets > 0 else (span if span > 0 else positions)
        backbone.append(embedding("encoder.rel_embeddings", 2 * extent, d))
    if "layer_norm" in [text.strip() for text in c.get("norm_rel_ebd", default="none").lower().split("|")]:
        backbone += norms("layer", d, "encoder.LayerNorm")
    kernel = c.size("conv_kernel_size", default=0, minimum=0)
    if kernel:
        groups = c.size("conv_groups", default=1)
        backbone.append(convolution("encoder.conv.conv", d, d, (kernel,), groups=groups))
        backbone += norms("layer", d, "encoder.conv.LayerNorm")
    if c.flag("legacy", default=True):
        words = masked_head(
            c, vocabulary, narrow, "cls.predictions", "cls.predictions.transform", "LayerNorm", d_in=d
        )
    else:
        words = [
            parameter("lm_predictions.lm_head.bias", (vocabulary,)),
            linear("lm_predictions.lm_head.dense", d, d, bias=True),
            *norms("layer", d, "lm_predictions.lm_head.LayerNorm"),
        ]
    pooled = c.size("pooler_hidden_size", default=d)
    pooler = linear("pooler.dense", pooled, pooled, bias=True)
    heads_of = {
        "ForMaskedLM": words,
        "ForSequenceClassification": [pooler, linear("classifier", c.labels, pooled, bias=True)],
        "ForTokenClassification": [linear("classifier", c.labels, d, bias=True)],
        "ForQuestionAnswering": [linear("qa_outputs", c.labels, d, bias=True)],
        "ForMultipleChoice": [pooler, linear("classifier", 1, pooled, bias=True)],
    }
    layers = Layers("encoder.layer", count, d, heads, heads, width, width, "gelu", "layer")
    return assemble("deberta", backbone, task, heads_of, layers)


def t5(c: Config, task: str) -> Body:
    """T5: relative positions in the first layer of each stack, cross-attention, always tied."""
    return text_to_text(c, task, vocabulary=32128, inner=2048, count=6, heads=8, feed_forward="relu")


def mt5(c: Config, task: str) -> Body:
    """mT5: T5 with a gate, more words and other defaults."""
    return text_to_text(c, task, vocabulary=250112, inner=1024, count=8, heads=6, feed_forward="gated-gelu")


def text_to_text(
    c: Config, task: str, *, vocabulary: int, inner: int, count: int, heads: int, feed_forward: str
) -> Body:
    """T5 and mT5, whose defaults differ."""
    d = c.size("d_model", "hidden_size", default=512)
    heads = c.size("num_heads", "num_attention_heads", default=heads)
    width = c.size("d_kv", "head_dim", default=64)
    inner = c.size("d_ff", default=inner)
    count = c.size("num_layers", "num_hidden_layers", default=count, minimum=0)
    decoders = c.size("num_decoder_layers", default=count, minimum=0)
    vocabulary = c.size("vocab_size", default=vocabulary)
    buckets = c.size("relative_attention_num_buckets", default=32)
    kind = c.get("feed_forward_proj", default=feed_forward)
    gated = kind.split("-")[0] == "gated"
    all_heads = heads * width

    def attention(index: int, name: str) -> list[ModuleSpec]:
        path = f"layer.{index}.{name}"
        maps = [linear(f"{path}.{letter}", all_heads, d) for letter in "qkv"]
        return [*maps, linear(f"{path}.o", d, all_heads), *norms("rms", d, f"layer.{index}.layer_norm")]

    def dense(index: int) -> list[ModuleSpec]:
        path = f"layer.{index}.DenseReluDense"
        first = [linear(f"{path}.{name}", inner, d) for name in (("wi_0", "wi_1") if gated else ("wi",))]
        return [*first, linear(f"{path}.wo", d, inner), *norms("rms", d, f"layer.{index}.layer_norm")]

    def side(name: str, count: int, layer: list[ModuleSpec]) -> list[ModuleSpec]:
        bias = embedding("layer.0.SelfAttention.relative_attention_bias", buckets, heads)
        return [
            embedding(f"{name}.embed_tokens", vocabulary, d, tied=True),
            *stack(f"{name}.block", range(count), layer),
            *stack(f"{name}.block", range(min(count, 1)), [bias]),
            *norms("rms", d, f"{name}.final_layer_norm"),
        ]

    encoder_layer = [*attention(0, "SelfAttention"), *dense(1)]
    decoder_layer = [*attention(0, "SelfAttention"), *attention(1, "EncDecAttention"), *dense(2)]
    activation = kind.split("-")[-1]
    layers = [Layers("encoder.block", count, d, heads, heads, width, width, activation, "rms")]
    backbone = [embedding("shared", vocabulary, d), *side("encoder", count, encoder_layer)]
    if task not in ("EncoderModel", "ForTokenClassification"):
        backbone += side("decoder", decoders, decoder_layer)
        layers.append(
            Layers("decoder.block", decoders, d, heads, heads, width, width, activation, "rms", True)
        )
    heads_of = {
        "EncoderModel": [],
        "ForConditionalGeneration": [linear("lm_head", vocabulary, d, tied=True)],
        "WithLMHeadModel": [linear("lm_head", vocabulary, d, tied=True)],
        "ForQuestionAnswering": [linear("qa_outputs", c.labels, d, bias=True)],
        "ForSequenceClassification": two_layer_head(c, "classification_head", d),
        "ForTokenClassification": [linear("classifier", c.labels, d, bias=True)],
    }
    wrapped = task in ("ForSequenceClassification", "ForTokenClassification")
    return assemble("transformer" if wrapped else "", backbone, task, heads_of, *layers)


def whisper(c: Config, task: str) -> Body:
    """Whisper: convolutions over the spectrogram, keys without bias."""
    d = c.size("d_model", "hidden_size", default=384)
    encoder_heads = c.size("encoder_attention_heads", "num_attention_heads", default=6)
    decoder_heads = c.size("decoder_attention_heads", default=6)
    encoders = c.size("encoder_layers", "num_hidden_layers", default=4, minimum=0)
    decoders = c.size("decoder_layers", default=4, minimum=0)
    names = ("d_model", "encoder_attention_heads")
    encoder_width = divide(d, encoder_heads, names=names)
    decoder_width = divide(d, decoder_heads, names=("d_model", "decoder_attention_heads"))

    def attention(path: str) -> list[ModuleSpec]:
        maps = [linear(f"{path}.{name}_proj", d, d, bias=name != "k") for name in ("k", "v", "q", "out")]
        return [*maps, *norms("layer", d, f"{path}_layer_norm")]

    def feed_forward(inner: int) -> list[ModuleSpec]:
        return [
            linear("fc1", inner, d, bias=True),
            linear("fc2", d, inner, bias=True),
            *norms("layer", d, "final_layer_norm"),
        ]

    encoder_layer = [
        *attention("self_attn"),
        *feed_forward(c.size("encoder_ffn_dim", default=1536)),
    ]
    decoder_layer = [
        *attention("self_attn"),
        *attention("encoder_attn"),
        *feed_forward(c.size("decoder_ffn_dim", default=1536)),
    ]
    vocabulary = c.size("vocab_size", default=51865)
    listening = [
        convolution("encoder.conv1", d, c.size("num_mel_bins", default=80), (3,)),
        convolution("encoder.conv2", d, d, (3,)),
        embedding("encoder.embed_positions", c.size("max_source_positions", default=1500), d),
        *stack("encoder.layers", range(encoders), encoder_layer),
        *norms("layer", d, "encoder.layer_norm"),
    ]
    writing = [
        embedding("decoder.embed_tokens", vocabulary, d),
        embedding("decoder.embed_positions", c.size("max_target_positions", default=448), d),
        *stack("decoder.layers", range(decoders), decoder_layer),
        *norms("layer", d, "decoder.layer_norm"),
    ]
    encoder_layers = Layers(
        "encoder.layers",
        encoders,
        d,
        encoder_heads,
        encoder_heads,
        encoder_width,
        encoder_width,
        "gelu",
        "layer",
    )
    decoder_layers = Layers(
        "decoder.layers",
        decoders,
        d,
        decoder_heads,
        decoder_heads,
        decoder_width,
        decoder_width,
        "gelu",
        "layer",
        True,
    )
    words = [linear("proj_out", vocabulary, d, tied=c.tied)]
    if task == "ForAudioClassification":
        middle = c.size("classifier_proj_size", default=256)
        mix = c.flag("use_weighted_layer_sum", default=False)
        head = [
            *([parameter("layer_weights", (encoders + 1,))] if mix else []),
            linear("projector", middle, d, bias=True),
            linear("classifier", c.labels, middle, bias=True),
        ]
        return assemble("", listening, task, {task: head}, encoder_layers)
    if task == "ForCausalLM":
        return assemble("model", writing, task, {task: words}, decoder_layers)
    heads_of = {"ForConditionalGeneration": words}
    return assemble("model", [*listening, *writing], task, heads_of, encoder_layers, decoder_layers)


def vit(c: Config, task: str) -> Body:
    """The vision transformer, whose modules transformers 5 renamed: the checkpoints' names are aliases."""
    d = c.size("hidden_size", default=768)
    heads = c.size("num_attention_heads", default=12)
    count = c.size("num_hidden_layers", default=12, minimum=0)
    inner = c.size("intermediate_size", default=3072)
    channels = c.size("num_channels", default=3)
    bias = c.flag("qkv_bias", default=True)
    width = divide(d, heads)
    image = c.pair("image_size", default=224)
    patch = c.pair("patch_size", default=16)
    patches = (image[0] // patch[0]) * (image[1] // patch[1])
    layer = [
        *(
            linear(f"attention.{short}_proj", d, d, bias=bias, alias=f"attention.attention.{long}")
            for short, long in (("q", "query"), ("k", "key"), ("v", "value"))
        ),
        linear("attention.o_proj", d, d, bias=True, alias="attention.output.dense"),
        *norms("layer", d, "layernorm_before", "layernorm_after"),
        linear("mlp.fc1", inner, d, bias=True, alias="intermediate.dense"),
        linear("mlp.fc2", d, inner, bias=True, alias="output.dense"),
    ]
    backbone = [
        parameter("embeddings.cls_token", (1, 1, d)),
        parameter("embeddings.position_embeddings", (1, patches + 1, d)),
        convolution("embeddings.patch_embeddings.projection", d, channels, patch),
        *stack("layers", range(count), layer, alias="encoder.layer"),
        *norms("layer", d, "layernorm"),
    ]
    stride = c.size("encoder_stride", default=16)
    heads_of = {
        "ForImageClassification": [linear("classifier", c.labels, d, bias=True)] if c.labels else [],
        "ForMaskedImageModeling": [convolution("decoder.0", stride**2 * channels, d, (1, 1))],
    }
    if task == "Model":
        backbone.append(linear("pooler.dense", c.size("pooler_output_size", default=d), d, bias=True))
    if task == "ForMaskedImageModeling":
        backbone.insert(1, parameter("embeddings.mask_token", (1, 1, d)))
    layers = Layers("layers", count, d, heads, heads, width, width, "gelu", "layer")
    return assemble("vit", backbone, task, heads_of, layers)


def llama(c: Config, task: str) -> Body:
    """Llama: grouped key-value heads, a gated MLP, RMS norms, rotary positions."""
    d, heads = shape(c, 4096, 32)
    width = c.size("head_dim", default=divide(d, heads))
    bias = c.flag("attention_bias", default=False)
    kv_heads = c.kv_heads(heads)
    layer = [
        *attention(d, heads, kv_heads, width, qkv_bias=bias, out_bias=bias),
        *gated_mlp(d, c.size("intermediate_size", default=11008), bias=c.flag("mlp_bias", default=False)),
        *norms("rms", d, "input_layernorm", "post_attention_layernorm"),
    ]
    return decoder(c, task, layer, (d, heads, kv_heads, width), count=32, vocabulary=32000, qa="transformer")


def mistral(c: Config, task: str) -> Body:
    """Mistral: Llama without biases."""
    d, heads = shape(c, 4096, 32)
    width = head_width(c, d, heads)
    kv_heads = c.kv_heads(heads, default=8)
    layer = [
        *attention(d, heads, kv_heads, width),
        *gated_mlp(d, c.size("intermediate_size", default=14336)),
        *norms("rms", d, "input_layernorm", "post_attention_layernorm"),
    ]
    return decoder(c, task, layer, (d, heads, kv_heads, width), count=32, vocabulary=32000)


def qwen2(c: Config, task: str) -> Body:
    """Qwen2 and Qwen2.5: biases on queries, keys and values only."""
    d, heads = shape(c, 4096, 32)
    width = head_width(c, d, heads)
    kv_heads = c.kv_heads(heads, default=32)
    layer = [
        *attention(d, heads, kv_heads, width, qkv_bias=True),
        *gated_mlp(d, c.size("intermediate_size", default=22016)),
        *norms("rms", d, "input_layernorm", "post_attention_layernorm"),
    ]
    return decoder(c, task, layer, (d, heads, kv_heads, width), count=32, vocabulary=151936, qa="transformer")


def qwen3(c: Config, task: str) -> Body:
    """Qwen3: norms on queries and keys, heads wider than d / heads."""
    d, heads = shape(c, 4096, 32)
    width = c.size("head_dim", default=128)
    bias = c.flag("attention_bias", default=False)
    kv_heads = c.kv_heads(heads, default=32)
    layer = [
        *attention(d, heads, kv_heads, width, qkv_bias=bias, out_bias=bias),
        *norms("rms", width, "self_attn.q_norm", "self_attn.k_norm"),
        *gated_mlp(d, c.size("intermediate_size", default=22016)),
        *norms("rms", d, "input_layernorm", "post_attention_layernorm"),
    ]
    return decoder(c, task, layer, (d, heads, kv_heads, width), count=32, vocabulary=151936, qa="transformer")


def gemma(c: Config, task: str) -> Body:
    """Gemma: heads of 256 whatever the width, tied."""
    d, heads = shape(c, 3072, 16)
    width = c.size("head_dim", default=256)
    bias = c.flag("attention_bias", default=False)
    kv_heads = c.kv_heads(heads, default=16)
    layer = [
        *attention(d, heads, kv_heads, width, qkv_bias=bias, out_bias=bias),
        *gated_mlp(d, c.size("intermediate_size", default=24576)),
        *norms("rms", d, "input_layernorm", "post_attention_layernorm"),
    ]
    facts = (d, heads, kv_heads, width)
    return decoder(c, task, layer, facts, count=28, vocabulary=256000, tied=True, activation="gelu")


def gemma2(c: Config, task: str) -> Body:
    """Gemma 2: Gemma with a norm on both sides of every block."""
    d, heads = shape(c, 2304, 8)
    divide(d, heads)
    width = c.size("head_dim", default=256)
    bias = c.flag("attention_bias", default=False)
    kv_heads = c.kv_heads(heads, default=4)
    layer = [
        *attention(d, heads, kv_heads, width, qkv_bias=bias, out_bias=bias),
        *gated_mlp(d, c.size("intermediate_size", default=9216)),
        *norms("rms", d, "input_layernorm", "post_attention_layernorm"),
        *norms("rms", d, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ]
    facts = (d, heads, kv_heads, width)
    return decoder(c, task, layer, facts, count=26, vocabulary=256000, tied=True, activation="gelu")


def phi(c: Config, task: str) -> Body:
    """Phi-1 and Phi-2: biases everywhere, even on the head."""
    d, heads = shape(c, 2048, 32)
    width = head_width(c, d, heads)
    kv_heads = c.kv_heads(heads)
    inner = c.size("intermediate_size", default=8192)
    layer = [
        linear("self_attn.q_proj", heads * width, d, bias=True),
        linear("self_attn.k_proj", kv_heads * width, d, bias=True),
        linear("self_attn.v_proj", kv_heads * width, d, bias=True),
        linear("self_attn.dense", d, heads * width, bias=True),
    ]
    if c.flag("qk_layernorm", default=False):
        layer += norms("layer", divide(d, heads), "self_attn.q_layernorm", "self_attn.k_layernorm")
    layer += [
        linear("mlp.fc1", inner, d, bias=True),
        linear("mlp.fc2", d, inner, bias=True),
        *norms("layer", d, "input_layernorm"),
    ]
    return decoder(
        c,
        task,
        layer,
        (d, heads, kv_heads, width),
        count=24,
        vocabulary=51200,
        last_norm=norms("layer", d, "final_layernorm"),
        head_bias=True,
        activation=c.get("hidden_act", default="gelu_new"),
    )


def phi3(c: Config, task: str) -> Body:
    """Phi-3: fused QKV and a fused gate."""
    d, heads = shape(c, 3072, 32)
    width = head_width(c, d, heads)
    kv_heads = c.kv_heads(heads)
    inner = c.size("intermediate_size", default=8192)
    layer = [
        linear("self_attn.o_proj", d, heads * width),
        linear("self_attn.qkv_proj", (heads + 2 * kv_heads) * width, d),
        linear("mlp.gate_up_proj", 2 * inner, d),
        linear("mlp.down_proj", d, inner),
        *norms("rms", d, "input_layernorm", "post_attention_layernorm"),
    ]
    return decoder(c, task, layer, (d, heads, kv_heads, width), count=32, vocabulary=32064)


def mixtral(c: Config, task: str) -> Body:
    """Mixtral: Mistral whose MLP is a router and experts."""
    d, heads = shape(c, 4096, 32)
    width = head_width(c, d, heads)
    kv_heads = c.kv_heads(heads, default=8)
    inner = c.size("intermediate_size", default=14336)
    experts = c.size("num_local_experts", "num_experts", default=8)
    chosen = chosen_experts(c, experts, default=2)
    path = "block_sparse_moe"
    layer = [
        *attention(d, heads, kv_heads, width),
        ModuleSpec("mlp.gate", "router", (experts, d), alias=f"{path}.gate"),
        ModuleSpec(
            "mlp.experts.gate_up_proj",
            "experts",
            (experts, 2 * inner, d),
            alias=f"{path}.experts.gate_up_proj",
            parts=("w1", "w3"),
        ),
        ModuleSpec(
            "mlp.experts.down_proj",
            "experts",
            (experts, d, inner),
            alias=f"{path}.experts.down_proj",
            parts=("w2",),
        ),
        *norms("rms", d, "input_layernorm", "post_attention_layernorm"),
    ]
    body = decoder(c, task, layer, (d, heads, kv_heads, width), count=32, vocabulary=32000)
    return body._replace(experts_per_token=chosen)


def deepseek_v3(c: Config, task: str) -> Body:
    """DeepSeek-V3: multi-head latent attention; the first layers dense, the others routed and shared experts.

    The module for predicting a second token is not part of the model that transformers builds.
    """
    d = c.size("hidden_size", default=7168)
    heads = c.size("num_attention_heads", default=128)
    count = c.size("num_hidden_layers", default=61, minimum=0)
    nope = c.size("qk_nope_head_dim", default=128)
    rope = c.size("qk_rope_head_dim", default=64)
    value = c.size("v_head_dim", default=128)
    kv_rank = c.size("kv_lora_rank", default=512)
    q_rank = c.values.get("q_lora_rank", 1536)
    bias = c.flag("attention_bias", default=False)
    inner = c.size("moe_intermediate_size", default=2048)
    experts = c.size("n_routed_experts", "num_local_experts", default=256)
    shared = c.size("n_shared_experts", default=1, minimum=0)
    chosen = chosen_experts(c, experts, default=8)
    dense = min(c.size("first_k_dense_replace", default=3, minimum=0), count)
    if q_rank is None:
        queries = [linear("self_attn.q_proj", heads * (nope + rope), d)]
    else:
        q_rank = whole_number("q_lora_rank", q_rank)
        queries = [
            linear("self_attn.q_a_proj", q_rank, d, bias=bias),
            *norms("rms", q_rank, "self_attn.q_a_layernorm"),
            linear("self_attn.q_b_proj", heads * (nope + rope), q_rank),
        ]
    common = [
        *queries,
        linear("self_attn.kv_a_proj_with_mqa", kv_rank + rope, d, bias=bias),
        *norms("rms", kv_rank, "self_attn.kv_a_layernorm"),
        linear("self_attn.kv_b_proj", heads * (nope + value), kv_rank),
        linear("self_attn.o_proj", d, heads * value, bias=bias),
        *norms("rms", d, "input_layernorm", "post_attention_layernorm"),
    ]
    routed = [
        ModuleSpec(
            "mlp.experts.gate_up_proj", "experts", (experts, 2 * inner, d), parts=("gate_proj", "up_proj")
        ),
        ModuleSpec("mlp.experts.down_proj", "experts", (experts, d, inner), parts=("down_proj",)),
        ModuleSpec("mlp.gate", "router", (experts, d)),
        *gated_mlp(d, inner * shared, path="mlp.shared_experts"),
    ]
    vocabulary = c.size("vocab_size", default=129280)
    dense_mlp = gated_mlp(d, c.size("intermediate_size", default=18432))
    backbone = [
        embedding("embed_tokens", vocabulary, d),
        *stack("layers", range(dense), [*common, *dense_mlp]),
        *stack("layers", range(dense, count), [*common, *routed]),
        *norms("rms", d, "norm"),
    ]
    tied = c.flag("tie_word_embeddings", default=False)
    layers = Layers("layers", count, d, heads, heads, nope + rope, value, "silu", "rms")
    heads_of = decoder_heads(c, vocabulary, d, tied=tied)
    return assemble("model", backbone, task, heads_of, layers)._replace(experts_per_token=chosen)


def linear(
    name: str, d_out: int, d_in: int, *, bias: bool = False, tied: bool = False, alias: str = ""
) -> ModuleSpec:
    """A linear map."""
    return ModuleSpec(name, "linear", (d_out, d_in), bias, tied, alias=alias)


def embedding(name: str, rows: int, width: int, *, tied: bool = False) -> ModuleSpec:
    """A table of ``rows`` vectors."""
    return ModuleSpec(name, "embedding", (rows, width), tied=tied)


def convolution(name: str, d_out: int, d_in: int, kernel: tuple[int, ...], *, groups: int = 1) -> ModuleSpec:
    """A convolution with bias."""
    return ModuleSpec(name, "convolution", (d_out, d_in // groups, *kernel), bias=True, groups=groups)


def parameter(name: str, shape: tuple[int, ...]) -> ModuleSpec:
    """A bare parameter."""
    return ModuleSpec(name, "parameter", shape)


def norms(kind: Literal["layer", "rms"], width: int, *names: str) -> list[ModuleSpec]:
    """Layer norms, which have a bias, or RMS norms, which have none."""
    return [ModuleSpec(name, "norm", (width,), bias=kind == "layer") for name in names]


def attention(
    d: int, heads: int, kv_heads: int, width: int, *, qkv_bias: bool = False, out_bias: bool = False
) -> list[ModuleSpec]:
    """Query, key, value and output maps, where key and value may have fewer heads."""
    return [
        linear("self_attn.q_proj", heads * width, d, bias=qkv_bias),
        linear("self_attn.k_proj", kv_heads * width, d, bias=qkv_bias),
        linear("self_attn.v_proj", kv_heads * width, d, bias=qkv_bias),
        linear("self_attn.o_proj", d, heads * width, bias=out_bias),
    ]


def gated_mlp(d: int, inner: int, *, bias: bool = False, path: str = "mlp") -> list[ModuleSpec]:
    """Gate, up and down."""
    if inner == 0:
        return []
    return [
        linear(f"{path}.gate_proj", inner, d, bias=bias),
        linear(f"{path}.up_proj", inner, d, bias=bias),
        linear(f"{path}.down_proj", d, inner, bias=bias),
    ]


def shape(c: Config, width: int, heads: int) -> tuple[int, int]:
    """Width and heads of a decoder; one must divide the other even where heads have a width of their own."""
    d = c.size("hidden_size", default=width)
    return d, c.size("num_attention_heads", default=heads)


def head_width(c: Config, d: int, heads: int) -> int:
    """The field ``head_dim``, or else the width divided by the heads."""
    given = c.get("head_dim")
    return divide(d, heads) if given is None else c.size("head_dim", default=1)


def chosen_experts(c: Config, experts: int, *, default: int) -> int:
    """How many experts see a token."""
    return whole_number(
        "num_experts_per_tok",
        c.get("num_experts_per_tok", default=default),
        maximum=experts,
        top="the number of experts",
    )


def decoder(
    c: Config,
    task: str,
    layer: Iterable[ModuleSpec],
    facts: tuple[int, int, int, int],
    *,
    count: int,
    vocabulary: int,
    tied: bool = False,
    head_bias: bool = False,
    last_norm: list[ModuleSpec] | None = None,
    qa: str = "model",
    activation: str = "silu",
) -> Body:
    """Embedding, layers, last norm and head of a decoder in Llama's manner."""
    d, heads, kv_heads, width = facts
    count = c.size("num_hidden_layers", default=count, minimum=0)
    vocabulary = c.size("vocab_size", default=vocabulary)
    last = norms("rms", d, "norm") if last_norm is None else last_norm
    backbone = [embedding("embed_tokens", vocabulary, d), *stack("layers", range(count), layer), *last]
    kind: Literal["layer", "rms"] = "layer" if last[0].bias else "rms"
    layers = Layers("layers", count, d, heads, kv_heads, width, width, activation, kind)
    tied = c.flag("tie_word_embeddings", default=tied)
    heads_of = decoder_heads(c, vocabulary, d, tied=tied, bias=head_bias)
    return assemble(qa if task == "ForQuestionAnswering" else "model", backbone, task, heads_of, layers)


def decoder_heads(
    c: Config, vocabulary: int, d: int, *, tied: bool, bias: bool = False
) -> dict[str, list[ModuleSpec]]:
    """The heads of decoders in Llama's manner."""
    return {
        "ForCausalLM": [linear("lm_head", vocabulary, d, bias=bias, tied=tied)],
        "ForSequenceClassification": [linear("score", c.labels, d)],
        "ForTokenClassification": [linear("score", c.labels, d, bias=True)],
        "ForQuestionAnswering": [linear("qa_outputs", 2, d, bias=True)],
    }


def classifiers(c: Config, d: int) -> dict[str, list[ModuleSpec]]:
    """The classifying heads of the older decoders."""
    return {
        "ForSequenceClassification": [linear("score", c.labels, d)],
        "ForTokenClassification": [linear("classifier", c.labels, d, bias=True)],
        "ForQuestionAnswering": [linear("qa_outputs", 2, d, bias=True)],
    }


def encoder(c: Config, *, vocabulary: int) -> tuple[int, list[ModuleSpec], Layers]:
    """Width, modules and facts of BERT and RoBERTa, as an encoder or a decoder."""
    d = c.size("hidden_size", default=768)
    heads = c.size("num_attention_heads", default=12)
    count = c.size("num_hidden_layers", default=12, minimum=0)
    inner = c.size("intermediate_size", default=3072)
    width = divide(d, heads)
    cross = c.flag("add_cross_attention", default=False)
    layer: list[ModuleSpec] = []
    for path in ("attention", "crossattention") if cross else ("attention",):
        layer += [linear(f"{path}.self.{name}", d, d, bias=True) for name in ("query", "key", "value")]
        layer += [
            linear(f"{path}.output.dense", d, d, bias=True),
            *norms("layer", d, f"{path}.output.LayerNorm"),
        ]
    layer += [
        linear("intermediate.dense", inner, d, bias=True),
        linear("output.dense", d, inner, bias=True),
        *norms("layer", d, "output.LayerNorm"),
    ]
    backbone = [
        embedding("embeddings.word_embeddings", c.size("vocab_size", default=vocabulary), d),
        embedding("embeddings.position_embeddings", c.size("max_position_embeddings", default=512), d),
        embedding("embeddings.token_type_embeddings", c.size("type_vocab_size", default=2), d),
        *norms("layer", d, "embeddings.LayerNorm"),
        *stack("encoder.layer", range(count), layer),
    ]
    layers = Layers("encoder.layer", count, d, heads, heads, width, width, "gelu", "layer", cross)
    return d, backbone, layers


def encoder_classifiers(c: Config, d: int) -> dict[str, list[ModuleSpec]]:
    """The classifying heads of BERT and RoBERTa."""
    return {
        "ForSequenceClassification": [linear("classifier", c.labels, d, bias=True)],
        "ForTokenClassification": [linear("classifier", c.labels, d, bias=True)],
        "ForQuestionAnswering": [linear("qa_outputs", c.labels, d, bias=True)],
        "ForMultipleChoice": [linear("classifier", 1, d, bias=True)],
    }


def masked_head(
    c: Config, vocabulary: int, d: int, path: str, transform: str, norm: str, *, d_in: int | None = None
) -> list[ModuleSpec]:
    """A masked-language head: transform, norm, and a decoder that shares weight and bias when tied."""
    return [
        parameter(f"{path}.bias", (vocabulary,)),
        linear(f"{transform}.dense", d, d_in or d, bias=True),
        *norms("layer", d, f"{transform}.{norm}"),
        ModuleSpec(f"{path}.decoder", "linear", (vocabulary, d), bias=True, tied=c.tied, tied_bias=c.tied),
    ]


def two_layer_head(c: Config, path: str, d: int) -> list[ModuleSpec]:
    """A classifier with a hidden layer."""
    return [
        linear(f"{path}.dense", d, d, bias=True),
        linear(f"{path}.out_proj", c.labels, d, bias=True),
    ]


# what get_output_embeddings() returns there: "all-linear" leaves it out
_OUTPUT_HEADS = (
    "lm_head",
    "cls.predictions.decoder",
    "lm_head.decoder",
    "lm_predictions.lm_head.dense",
    "proj_out",
)


def assemble(
    base: str,
    backbone: Iterable[ModuleSpec],
    task: str,
    heads_of: Mapping[str, list[ModuleSpec]],
    *layers: Layers,
) -> Body:
    """The backbone alone (``"Model"``), or under the name ``base`` with the head of ``task``."""
    if task == "Model":
        return Body(tuple(backbone), layers)
    head = heads_of[task]
    modules = [*(under(base, backbone) if base else backbone), *head]
    placed = tuple(
        stack._replace(prefix=f"{base}.{stack.prefix}" if base else stack.prefix) for stack in layers
    )
    output = [module.name for module in head if module.name in _OUTPUT_HEADS]
    return Body(modules, placed, head=output[0] if output else "")


def _task(family: Family, architecture: str) -> str:
    if not architecture:
        return family.task
    known = [family.classes + task for task in family.tasks]
    return choice("architecture", architecture, known).removeprefix(family.classes)


_DROPOUT = ("hidden_dropout_prob", "resid_pdrop", "dropout_rate", "hidden_dropout", "dropout")
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout", "dropout_rate")

_CAUSAL = ("ForCausalLM", "Model", "ForSequenceClassification", "ForTokenClassification")
_ANSWERING = (*_CAUSAL, "ForQuestionAnswering")
_ENCODING = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
_TEXT_TO_TEXT = (
    "ForConditionalGeneration",
    "WithLMHeadModel",
    "Model",
    "EncoderModel",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
_QV = ("q_proj", "v_proj")

FAMILIES: Mapping[str, Family] = {
    "gpt2": Family(
        gpt2,
        "GPT2",
        "LMHeadModel",
        ("LMHeadModel", "Model", "DoubleHeadsModel", *_ANSWERING[2:]),
        ("c_attn",),
        dropout=0.1,
        attention_dropout=0.1,
    ),
    "gpt_neox": Family(gpt_neox, "GPTNeoX", "ForCausalLM", _ANSWERING, ("query_key_value",)),
    "opt": Family(
        opt,
        "OPT",
        "ForCausalLM",
        ("ForCausalLM", "Model", "ForSequenceClassification", "ForQuestionAnswering"),
        _QV,
        dropout=0.1,
    ),
    "bloom": Family(bloom, "Bloom", "ForCausalLM", _ANSWERING, ("query_key_value",)),
    "falcon": Family(falcon, "Falcon", "ForCausalLM", _ANSWERING, ("query_key_value",)),
    "bert": Family(
        bert,
        "Bert",
        "Model",
        (*_ENCODING, "ForPreTraining", "ForNextSentencePrediction", "LMHeadModel"),
        ("query", "value"),
        dropout=0.1,
        attention_dropout=0.1,
    ),
    "roberta": Family(
        roberta,
        "Roberta",
        "Model",
        (*_ENCODING, "ForCausalLM"),
        ("query", "value"),
        dropout=0.1,
        attention_dropout=0.1,
    ),
    "deberta-v2": Family(
        deberta_v2,
        "DebertaV2",
        "Model",
        _ENCODING,
        ("query_proj", "value_proj"),
        dropout=0.1,
        attention_dropout=0.1,
    ),
    "t5": Family(
        t5, "T5", "ForConditionalGeneration", _TEXT_TO_TEXT, ("q", "v"), dropout=0.1, attention_dropout=0.1
    ),
    "mt5": Family(
        mt5, "MT5", "ForConditionalGeneration", _TEXT_TO_TEXT, ("q", "v"), dropout=0.1, attention_dropout=0.1
    ),
    "whisper": Family(
        whisper,
        "Whisper",
        "ForConditionalGeneration",
        ("ForConditionalGeneration", "Model", "ForCausalLM", "ForAudioClassification"),
    ),
    "vit": Family(vit, "ViT", "Model", ("Model", "ForImageClassification", "ForMaskedImageModeling")),
    "llama": Family(llama, "Llama", "ForCausalLM", _ANSWERING, _QV),
    "mistral": Family(mistral, "Mistral", "ForCausalLM", _ANSWERING, _QV),
    "qwen2": Family(qwen2, "Qwen2", "ForCausalLM", _ANSWERING, _QV),
    "qwen3": Family(qwen3, "Qwen3", "ForCausalLM", _ANSWERING, _QV),
    "gemma": Family(gemma, "Gemma", "ForCausalLM", _CAUSAL, _QV),
    "gemma2": Family(gemma2, "Gemma2", "ForCausalLM", _CAUSAL, _QV),
    "phi": Family(phi, "Phi", "ForCausalLM", _CAUSAL, ("q_proj", "v_proj", "fc1", "fc2")),
    "phi3": Family(phi3, "Phi3", "ForCausalLM", _CAUSAL),
    "mixtral": Family(
        mixtral,
        "Mixtral",
        "ForCausalLM",
        _ANSWERING,
        _QV,
        {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"},
    ),
    "deepseek_v3": Family(
        deepseek_v3,
        "DeepseekV3",
        "ForCausalLM",
        _CAUSAL,
        (),
        {
            "gate": "gate.weight",
            "gate_proj": "gate_up_proj",
            "up_proj": "gate_up_proj",
            "down_proj": "down_proj",
        },
    ),
}
