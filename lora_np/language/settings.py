"""The settings of a decoder in a ``config.json``, by its family's data; unknown ones are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

from lora_np.checks import choice, number, shown, whole_number
from lora_np.language.rotary import Rotary
from lora_np.models import decoder_of

Fields = Mapping[str, Any]
CONTEXT = 2048  # tokens, where a config does not say
# Fields that make some model compute differently, and the neutral value; null is always neutral.
NEUTRAL: Mapping[str, Any] = {
    **dict.fromkeys(("attention_chunk_size", "no_rope_layers", "sliding_window", "clip_qkv")),
    **dict.fromkeys(("attention_multiplier", "attn_logit_softcapping", "final_logit_softcapping")),
    **dict.fromkeys(("embedding_multiplier", "residual_multiplier", "logit_scale", "logits_scaling"), 1),
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct"), 1),
    **dict.fromkeys(("is_causal", "scale_attn_weights"), True),
    **dict.fromkeys(("use_bidirectional_attention", "use_sliding_window", "use_qk_norm"), False),
    **dict.fromkeys(("add_cross_attention", "alibi", "use_parallel_residual", "output_router_logits"), False),
    **dict.fromkeys(("qk_layernorm", "scale_attn_by_inverse_layer_idx"), False),
    "router_jitter_noise": 0,
}
KINDS = {"full_attention", "sliding_attention"}  # of layers
ROPE = {  # what is known among the parameters of rotary positions
    *("rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"),
    *("factor", "alpha", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor"),
    *("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate", "finetuned"),
}


def decoder_settings(config: Mapping[str, Any]) -> SimpleNamespace:
    """What a decoder needs from a config, under the names in its family's data.

    Parameters
    ----------
    config : mapping
        The contents of ``config.json``.

    Returns
    -------
    SimpleNamespace
        The variables of the family and what its table ``decoder`` says; in ``layers``, the same for each
        layer, with its ``rotary``; ``spec``, its modules; ``embedding``, the name of one; and ``context``.

    Raises
    ------
    ValueError
        If the family cannot be run, a field does not fit, or one that would change the computation is not
        understood.
    """
    try:
        return understood(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.json: {error}") from None


def understood(config: Fields) -> SimpleNamespace:
    facts, layers, read, spec = decoder_of(config)  # where null may mean something else than missing
    config = stated(config)
    check_neutral(config, facts, len(layers), read)
    named = next(name for name in ("hidden_act", "hidden_activation", "activation_function") if name in read)
    choice(named, facts["activation"], ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu2", "xielu"))
    positions = facts["positions"] or config.get("max_position_embeddings", CONTEXT)
    context = whole_number("max_position_embeddings", positions)
    embedding = next(module.name for module in spec.groups if module.role == "embedding")
    layers = [{**layer, "rotary": rotary_of(config, layer, context)} for layer in layers]
    constants = {name: number for layer in layers for name, number in layer["constants"].items()}
    found = {"constants": constants, "layers": layers, "context": context, "spec": spec}
    return SimpleNamespace(**{**facts, **found, "embedding": embedding})


def check_neutral(config: Fields, facts: Mapping[str, Any], layers: int, read: Collection[str]) -> None:
    """Refuse fields that make other models compute differently, and that this family does not read."""
    activation = facts["activation"]
    same = dict.fromkeys(("hidden_act", "hidden_activation", "activation_function"), activation)
    for name, neutral in {**NEUTRAL, **same, "layer_types": ["full_attention"] * layers}.items():
        if name not in read and config.get(name, neutral) != neutral:
            right = f"{json.dumps(neutral)} in a {config['model_type']} model; no other is understood"
            raise ValueError(f"{name} must be {right}, got {shown(config[name])}")


def stated(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that are null, which counts as missing."""
    return {name: value for name, value in fields.items() if value is not None}


def real(fields: Fields, name: str, default: float | None = None, *, above: float = 0.0) -> float:
    """A finite number above ``above``."""
    found = fields.get(name, default)
    if found is None:
        raise ValueError(f"{name} must be a number above {above:g}, but it is missing")
    return number(name, found, minimum=above, open_minimum=True)


def numbers(fields: Fields, name: str, count: int) -> tuple[float, ...]:
    """So many numbers above zero."""
    found = fields.get(name)
    if not isinstance(found, (list, tuple)) or len(found) != count:
        raise ValueError(f"{name} must be a list of {count} numbers, got {shown(found)}")
    return tuple(number(name, each, minimum=0, open_minimum=True) for each in found)


def rotary_of(config: Fields, layer: Mapping[str, Any], context: int) -> Rotary:
    """Angles of positions in a layer."""
    width = layer["width"]
    if not layer["turned"]:
        return Rotary(width + width % 2, 1.0, "none")
    rope = parameters_of(config, layer)
    kind = rope.get("rope_type", rope.get("type", "default"))
    kind = {"su": "longrope"}.get(kind, kind) if isinstance(kind, str) else kind
    kind = "alpha" if kind == "dynamic" and "alpha" in rope else kind
    choice("rope_type", kind, layer["rope_kinds"])
    # yarn divides by its logarithm
    least = float(kind == "yarn")
    theta = number("rope_theta", rope.get("rope_theta", layer["theta"]), minimum=least, open_minimum=True)
    part = real(rope, "partial_rotary_factor", layer["part"] or 1.0)
    if part != 1.0 and layer["part"] is False:
        raise ValueError(f"partial_rotary_factor must be 1 in a {config['model_type']} model, got {part:g}")
    d = int(width * part)
    if d % 2 or width % 2 or not 0 < d <= width:
        raise ValueError(f"head_dim must be even for rotary positions, got {width}, of which {d} turn")
    more: dict[str, Any] = {"width": width, "neighbours": layer["pairs"] == "neighbours"}
    if kind == "default":
        return Rotary(d, theta, **more)
    name = "original_max_position_embeddings"
    trained = whole_number(name, config.get(name, rope.get(name, context)))
    factor = real(rope, "factor", context / trained)
    if kind in ("dynamic", "alpha"):
        trained = context
        factor = real(rope, "alpha") if kind == "alpha" else factor
        if d == 2:
            raise ValueError(f"head_dim must be above 2 for {kind} rotary positions, got 2")
    elif kind == "llama3":
        low = real(rope, "low_freq_factor")
        more |= {"low": low, "high": real(rope, "high_freq_factor", above=low)}
    elif kind == "longrope":
        more |= {"short": numbers(rope, "short_factor", d // 2), "long": numbers(rope, "long_factor", d // 2)}
        stretch = 1 + math.log(factor) / math.log(trained) if factor > 1 and trained > 1 else 1.0
        more["attention"] = real(rope, "attention_factor", stretch**0.5)
    elif kind == "yarn":
        more |= {"low": real(rope, "beta_slow", 1), "high": real(rope, "beta_fast", 32)}
        more |= {"attention": yarn_attention(rope, factor), "truncate": rope.get("truncate", True)}
        if not isinstance(more["truncate"], bool):
            raise ValueError(f"truncate must be true or false, got {shown(more['truncate'])}")
    return Rotary(d, theta, kind, factor, trained, **more)


def parameters_of(config: Fields, layer: Mapping[str, Any]) -> Fields:
    """The parameters of a layer's rotary positions; unknown ones are refused."""
    rope: dict[str, Any] = {}
    kind = layer["kind"] if layer["rope_each"] else ""
    # "rope_parameters" since transformers 5, "rope_scaling" next to "rope_theta" before
    for name in ("rope_scaling", "rope_parameters"):
        part = config.get(name, {})
        if not isinstance(part, Mapping):
            raise ValueError(f"{name} must be an object or null, got {shown(part)}")
        if kind and name == "rope_parameters":
            if part.keys() - KINDS:
                raise ValueError(f"{name} must have an object for each of {sorted(KINDS)}, got {shown(part)}")
            part = part.get(kind) or {}
        elif kind == "sliding_attention":
            continue
        rope |= stated(part)
    rope = rope or stated(layer["rope"])
    if unknown := sorted(rope.keys() - ROPE):
        raise ValueError(f"{unknown[0]} is not understood among the parameters of rotary positions")
    return rope


def yarn_attention(rope: Fields, factor: float) -> float:
    """The factor on cos and sin: stated, or grown with the logarithm of the stretch."""
    if "attention_factor" in rope:
        return real(rope, "attention_factor")

    def grown(m: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0

    # zero counts as missing, as transformers reads them
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return grown(real(rope, "mscale")) / grown(real(rope, "mscale_all_dim"))
    return grown(1.0)
