"""What a ``config.json`` says about a decoder: the families that are understood and how they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lora_np.checks import choice
from lora_np.language.rotary import Rotary

# What a family's config means where it says nothing.
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8},
    "qwen2": {"num_key_value_heads": 32, "max_window_layers": 28},
    "qwen3": {"num_key_value_heads": 32, "max_window_layers": 28, "head_dim": 128},
    "smollm3": {"num_key_value_heads": 4, "rope_theta": 2e6, "tie_word_embeddings": True},
    "gemma": {"num_key_value_heads": 16, "head_dim": 256, "tie_word_embeddings": True},
}


class DecoderSettings:
    """Answers of a config to what a decoder needs to know.

    Parameters
    ----------
    config : mapping
        The contents of ``config.json``.

    Raises
    ------
    ValueError
        If the family is not understood, or a number that is needed is missing or does not fit.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.family = choice("model_type", config.get("model_type", "nothing"), FAMILIES)
        self.defaults = FAMILIES[self.family]
        self.d = self.whole("hidden_size")
        self.layers = self.whole("num_hidden_layers")
        self.heads = self.whole("num_attention_heads")
        self.kv = self.whole("num_key_value_heads", self.heads)
        self.head_size = self.whole("head_dim", self.d // self.heads)
        self.vocab = self.whole("vocab_size")
        self.eps = float(self.get("rms_norm_eps", 1e-6))
        self.tied = bool(self.get("tie_word_embeddings", False))
        self.gemma = self.family == "gemma"  # norms count from one, embeddings are scaled
        if self.heads % self.kv:
            raise ValueError(
                "num_attention_heads must be a multiple of num_key_value_heads, got "
                f"{self.heads} and {self.kv}"
            )
        if self.head_size % 2:
            raise ValueError(f"head_dim must be even for rotary positions, got {self.head_size}")
        # Old configs of Gemma say hidden_act="gelu" and mean its tanh form, as transformers reads them.
        name = "hidden_activation" if self.get("hidden_activation", None) else "hidden_act"
        self.activation = choice(
            name, self.get(name, "silu"), ("silu", "gelu_pytorch_tanh") + (("gelu",) if self.gemma else ())
        )

    def get(self, name: str, default: Any) -> Any:
        """The config's value, the family's default, or ``default``; null counts as missing."""
        value = self.config.get(name)
        return self.defaults.get(name, default) if value is None else value

    def whole(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"config.json: {name} must be a whole number from 1, got {value!r}")
        return value

    def window(self, layer: int) -> int | None:
        """How many tokens back a layer sees; None for all."""
        size: int | None = self.get("sliding_window", None)
        if self.family == "mistral":
            return size
        if size is None or not self.get("use_sliding_window", False):
            return None
        types = self.get("layer_types", None)
        if types is None:
            sliding = (
                not self.positions(layer)
                if self.family == "smollm3"
                else layer >= self.get("max_window_layers", 0)
            )
        else:
            sliding = types[layer] == "sliding_attention"
        return size if sliding else None

    def positions(self, layer: int) -> bool:
        """Whether a layer turns its queries and keys; every fourth of SmolLM3 does not."""
        if self.family != "smollm3":
            return True
        listed = self.get("no_rope_layers", None)
        if listed is None:
            return (layer + 1) % int(self.get("no_rope_layer_interval", 4)) != 0
        return bool(listed[layer])

    def rotary(self, layer: int) -> Rotary:
        """Angles of a layer's positions."""
        # "rope_parameters" since transformers 5, "rope_scaling" next to "rope_theta" before.
        rope = dict(self.get("rope_scaling", None) or {}) | dict(self.get("rope_parameters", None) or {})
        theta = float(rope.get("rope_theta") or self.get("rope_theta", 10000.0))
        d = self.head_size
        if not self.positions(layer):
            return Rotary(d, theta, "none")
        kind = str(rope.get("rope_type", rope.get("type", "default")))
        choice("rope_type", kind, ("default", "linear", "dynamic", "llama3", "yarn"))
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError("partial_rotary_factor must be 1: partly turned heads are not understood")
        if kind == "default":
            return Rotary(d, theta)
        longest = self.get("max_position_embeddings", 2048)
        trained = rope.get("original_max_position_embeddings") or longest
        factor = float(rope.get("factor") or longest / trained)
        if kind == "linear":
            return Rotary(d, theta, kind, factor)
        if kind == "dynamic":
            return Rotary(d, theta, kind, factor, longest)
        if kind == "llama3":
            low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
            return Rotary(d, theta, kind, factor, trained, low, high)
        return Rotary(
            d,
            theta,
            kind,
            factor,
            trained,
            low=float(rope.get("beta_slow") or 1),
            high=float(rope.get("beta_fast") or 32),
            attention=yarn_attention(rope, factor),
            truncate=bool(rope.get("truncate", True)),
        )


def yarn_attention(rope: Mapping[str, Any], factor: float) -> float:
    """The factor on cos and sin: stated, or grown with the logarithm of the stretch."""
    stated = rope.get("attention_factor")
    if stated is not None:
        return float(stated)

    def grown(m: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0

    m, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    return grown(m) / grown(all_dim) if m and all_dim else grown(1.0)
