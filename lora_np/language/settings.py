"""The settings of a decoder in a ``config.json``, by its family's data; unknown ones are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from lora_np.checks import choice, number, shown, whole_number
from lora_np.language.rotary import Rotary
from lora_np.models import decoder_of

CONTEXT = 2048  # tokens, where a config does not say
# Fields that make some model compute differently, and the neutral value; null is always neutral.
NEUTRAL: Mapping[str, Any] = {
    **dict.fromkeys(("attention_chunk_size", "no_rope_layers", "sliding_window")),
    **dict.fromkeys(("attention_multiplier", "attn_logit_softcapping", "final_logit_softcapping")),
    **dict.fromkeys(("embedding_multiplier", "residual_multiplier", "logit_scale", "logits_scaling"), 1),
    "partial_rotary_factor": 1,
    "is_causal": True,
    **dict.fromkeys(("use_bidirectional_attention", "use_sliding_window"), False),
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
        The variables of the family, what its table ``decoder`` says, ``eps``, and for each layer ``rotary``
        and ``windows``.

    Raises
    ------
    ValueError
        If the family cannot be run, a field does not fit, or one that would change the computation is not
        understood.
    """
    try:
        return understood(Said(config))
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.json: {error}") from None


def understood(config: Said) -> SimpleNamespace:
    facts, layers, read = decoder_of(config)
    d = facts["width"]
    if d % 2:
        raise ValueError(f"head_dim must be even for rotary positions, got {d}")
    activation = choice("hidden_act", facts["activation"], ("silu", "gelu_pytorch_tanh"))
    others = {"layer_types": ["full_attention"] * len(layers), "hidden_activation": activation}
    for name, neutral in {**NEUTRAL, **others}.items():
        if name not in read and config.get(name, neutral) != neutral:
            right = f"{json.dumps(neutral)} in a {config['model_type']} model; no other is understood"
            raise ValueError(f"{name} must be {right}, got {shown(config[name])}")
    context = whole_number("max_position_embeddings", config.get("max_position_embeddings", CONTEXT))
    rotary = rotary_of(config, d, context, facts["theta"])
    turning = [rotary if layer["turned"] else Rotary(d, 1.0, "none") for layer in layers]
    windows = [layer["window"] or None for layer in layers]
    eps = config.real("rms_norm_eps", 1e-6)
    return SimpleNamespace(**{**facts, "eps": eps, "rotary": turning, "windows": windows})


class Said(dict[str, Any]):
    """Fields, of which null counts as missing."""

    def get(self, name: str, default: Any = None) -> Any:
        """The value that is there, or ``default``."""
        value = super().get(name)
        return default if value is None else value

    def real(self, name: str, default: float | None = None, *, above: float = 0.0) -> float:
        """A finite number above ``above``."""
        if self.get(name, default) is None:
            raise ValueError(f"{name} must be a number above {above:g}, but it is missing")
        return number(name, self.get(name, default), minimum=above, open_minimum=True)


def rotary_of(config: Said, d: int, context: int, theta: float) -> Rotary:
    """Angles of positions."""
    rope = Said()  # "rope_parameters" since transformers 5, "rope_scaling" next to "rope_theta" before
    for name in ("rope_scaling", "rope_parameters"):
        part = config.get(name, {})
        if not isinstance(part, Mapping):
            raise ValueError(f"{name} must be an object or null, got {shown(part)}")
        rope.update(part)
    kinds = ("default", "linear", "dynamic", "llama3", "yarn")
    kind = choice("rope_type", rope.get("rope_type", rope.get("type", "default")), kinds)
    # yarn divides by its logarithm
    where = config if rope.get("rope_theta") is None else rope
    theta = where.real("rope_theta", theta, above=float(kind == "yarn"))
    if rope.real("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("partial_rotary_factor must be 1: partly turned heads are not understood")
    if kind == "default":
        return Rotary(d, theta)
    name = "original_max_position_embeddings"
    trained = whole_number(name, rope.get(name, context))
    factor = rope.real("factor", context / trained)
    more: dict[str, Any] = {}
    if kind == "dynamic":
        trained = context
        if d == 2:
            raise ValueError("head_dim must be above 2 for dynamic rotary positions, got 2")
    elif kind == "llama3":
        low = rope.real("low_freq_factor")
        more = {"low": low, "high": rope.real("high_freq_factor", above=low)}
    elif kind == "yarn":
        more = {"low": rope.real("beta_slow", 1), "high": rope.real("beta_fast", 32)}
        more |= {"attention": yarn_attention(rope, factor), "truncate": rope.get("truncate", True)}
        if not isinstance(more["truncate"], bool):
            raise ValueError(f"truncate must be true or false, got {shown(more['truncate'])}")
    return Rotary(d, theta, kind, factor, trained, **more)


def yarn_attention(rope: Said, factor: float) -> float:
    """The factor on cos and sin: stated, or grown with the logarithm of the stretch."""
    if rope.get("attention_factor") is not None:
        return rope.real("attention_factor")

    def grown(m: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0

    # zero counts as missing, as transformers reads them
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return grown(rope.real("mscale")) / grown(rope.real("mscale_all_dim"))
    return grown(1.0)
