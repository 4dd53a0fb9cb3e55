"""What a ``config.json`` says about a decoder: the families that are understood and how they differ."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lora_np.checks import choice, shown
from lora_np.language.rotary import Rotary

# What a family's config means where it says nothing.
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "max_window_layers": 28, "sliding_window": 4096},
    "qwen3": {"num_key_value_heads": 32, "max_window_layers": 28, "sliding_window": 4096, "head_dim": 128},
    "smollm3": {"num_key_value_heads": 4, "rope_theta": 2e6, "tie_word_embeddings": True},
    "gemma": {"num_key_value_heads": 16, "head_dim": 256, "tie_word_embeddings": True},
}
CONTEXT = 2048  # tokens, where a config does not say
CONFIG = "config.json"


@dataclass(frozen=True)
class Fields:
    """Fields of a config, each checked as it is read; null counts as missing.

    ``defaults`` is what a family means where it says nothing, ``where`` the file for messages.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    where: str = CONFIG

    def get(self, name: str, default: Any = None) -> Any:
        """The value that is there, the family's default, or ``default``; not checked."""
        value = self.values.get(name)
        return self.defaults.get(name, default) if value is None else value

    def wrong(self, name: str, right: str, value: Any) -> ValueError:
        """The error of a value that is not what it must be."""
        got = "but it is missing" if value is None else f"got {shown(value)}"
        return ValueError(f"{self.where}: {name} must be {right}, {got}")

    def whole(self, name: str, default: int | None = None, *, minimum: int = 1) -> int:
        """A whole number."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.wrong(name, f"a whole number from {minimum}", value)
        return value

    def real(self, name: str, default: float | None = None, *, above: float = 0.0) -> float:
        """A number above ``above``; not NaN, and not infinite."""
        value = self.get(name, default)
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (real and above < value <= sys.float_info.max):
            raise self.wrong(name, f"a number above {above:g}", value)
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def word(self, name: str, default: str, options: Iterable[str]) -> str:
        """One of some words."""
        return choice(f"{self.where}: {name}", self.get(name, default), options)

    def part(self, name: str) -> Mapping[str, Any]:
        """An object of more fields; empty where there is none."""
        value = self.get(name, {})
        if not isinstance(value, Mapping):
            raise self.wrong(name, "an object or null", value)
        return value

    def of_layer(self, name: str, layer: int, layers: int, options: Iterable[Any]) -> Any:
        """The entry for a layer, in a list with one for each; None where there is no list."""
        value, known = self.get(name), list(options)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) < layers:
            count = f" with {len(value)} entries" if isinstance(value, (list, tuple)) else ""
            raise ValueError(
                f"{self.where}: {name} must be a list with an entry for each of the {layers} layers, "
                f"got {shown(value)}{count}"
            )
        if value[layer] not in known:
            raise self.wrong(f"{name}[{layer}]", f"one of {', '.join(map(repr, known))}", value[layer])
        return value[layer]


class DecoderSettings:
    """Answers of a config to what a decoder needs to know.

    Parameters
    ----------
    config : mapping
        The contents of ``config.json``.

    Raises
    ------
    ValueError
        If the family is not understood, or a field that is needed is missing or does not fit.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        family = config.get("model_type")
        if family is None:
            raise ValueError(
                f"{CONFIG}: model_type is missing; it must be one of {', '.join(map(repr, FAMILIES))}"
            )
        self.family = choice(f"{CONFIG}: model_type", family, FAMILIES)
        fields = self.fields = Fields(config, FAMILIES[self.family])
        self.d = fields.whole("hidden_size")
        self.inner = fields.whole("intermediate_size")
        self.layers = fields.whole("num_hidden_layers")
        self.heads = fields.whole("num_attention_heads")
        self.kv = fields.whole("num_key_value_heads", self.heads)
        self.head_size = fields.whole("head_dim", self.d // self.heads)
        self.vocab = fields.whole("vocab_size")
        self.context = fields.whole("max_position_embeddings", CONTEXT)
        self.eps = fields.real("rms_norm_eps", 1e-6)
        self.tied = fields.flag("tie_word_embeddings", False)
        self.gemma = self.family == "gemma"  # norms count from one, embeddings are scaled
        if self.heads % self.kv:
            raise ValueError(
                f"{CONFIG}: num_attention_heads must be a multiple of num_key_value_heads, got "
                f"{self.heads} and {self.kv}"
            )
        if self.head_size % 2:
            raise ValueError(f"{CONFIG}: head_dim must be even for rotary positions, got {self.head_size}")
        # Old configs of Gemma say hidden_act="gelu" and mean its tanh form, as transformers reads them.
        name = "hidden_activation" if fields.get("hidden_activation") else "hidden_act"
        self.activation = fields.word(
            name, "silu", ("silu", "gelu_pytorch_tanh") + (("gelu",) if self.gemma else ())
        )

    def window(self, layer: int) -> int | None:
        """How many tokens back a layer sees; None for all."""
        fields = self.fields
        if fields.values.get("sliding_window", ...) is None or fields.get("sliding_window") is None:
            return None  # here null does not mean the family's default
        if self.family == "mistral":
            return fields.whole("sliding_window")
        if not fields.flag("use_sliding_window", False):
            return None
        kind = fields.of_layer("layer_types", layer, self.layers, ("full_attention", "sliding_attention"))
        if kind is not None:
            sliding = kind == "sliding_attention"
        elif self.family == "smollm3":
            sliding = not self.positions(layer)
        else:
            sliding = layer >= fields.whole("max_window_layers", 0, minimum=0)
        return fields.whole("sliding_window") if sliding else None

    def positions(self, layer: int) -> bool:
        """Whether a layer turns its queries and keys; every fourth of SmolLM3 does not."""
        if self.family != "smollm3":
            return True
        turned = self.fields.of_layer("no_rope_layers", layer, self.layers, (0, 1))
        if turned is None:
            return (layer + 1) % self.fields.whole("no_rope_layer_interval", 4) != 0
        return bool(turned)

    def rotary(self, layer: int) -> Rotary:
        """Angles of a layer's positions."""
        # "rope_parameters" since transformers 5, "rope_scaling" next to "rope_theta" before.
        given = {**self.fields.part("rope_scaling"), **self.fields.part("rope_parameters")}
        present = "rope_parameters" if self.fields.get("rope_parameters") else "rope_scaling"
        rope = Fields(given, {}, where=f"{CONFIG}: {present}")
        d = self.head_size
        kind = choice(
            f"{rope.where}: rope_type",
            rope.get("rope_type", rope.get("type", "default")),
            ("default", "linear", "dynamic", "llama3", "yarn"),
        )
        # yarn divides by its logarithm
        within = self.fields if rope.get("rope_theta") is None else rope
        theta = within.real("rope_theta", 10000.0, above=1.0 if kind == "yarn" else 0.0)
        if not self.positions(layer):
            return Rotary(d, theta, "none")
        if rope.real("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError(
                f"{rope.where}: partial_rotary_factor must be 1: partly turned heads are not understood"
            )
        if kind == "default":
            return Rotary(d, theta)
        trained = rope.whole("original_max_position_embeddings", self.context)
        factor = rope.real("factor", self.context / trained)
        if kind == "linear":
            return Rotary(d, theta, kind, factor)
        if kind == "dynamic":
            if d == 2:
                raise ValueError(f"{CONFIG}: head_dim must be above 2 for dynamic rotary positions, got 2")
            return Rotary(d, theta, kind, factor, self.context)
        if kind == "llama3":
            low = rope.real("low_freq_factor")
            high = rope.real("high_freq_factor", above=low)
            return Rotary(d, theta, kind, factor, trained, low, high)
        return Rotary(
            d,
            theta,
            kind,
            factor,
            trained,
            low=rope.real("beta_slow", 1),
            high=rope.real("beta_fast", 32),
            attention=yarn_attention(rope, factor),
            truncate=rope.flag("truncate", True),
        )


def yarn_attention(rope: Fields, factor: float) -> float:
    """The factor on cos and sin: stated, or grown with the logarithm of the stretch."""
    if rope.get("attention_factor") is not None:
        return rope.real("attention_factor")

    def grown(m: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0

    # zero counts as missing, as transformers reads them
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return grown(rope.real("mscale")) / grown(rope.real("mscale_all_dim"))
    return grown(1.0)
