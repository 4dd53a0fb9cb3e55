"""What a ``config.json`` says about a decoder, by its family's data; what is not understood is refused."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_np.checks import choice, shown
from lora_np.language.rotary import Rotary
from lora_np.models import decoder_of

CONTEXT = 2048  # tokens, where a config does not say
CONFIG = "config.json"
# Fields by which some model computes otherwise, and the value that changes nothing; null never does.
NEUTRAL: Mapping[str, Any] = {
    "attention_chunk_size": None,
    "attention_multiplier": None,
    "attn_logit_softcapping": None,
    "embedding_multiplier": 1,
    "final_logit_softcapping": None,
    "is_causal": True,
    "logit_scale": 1,
    "logits_scaling": 1,
    "no_rope_layers": None,
    "partial_rotary_factor": 1,
    "residual_multiplier": 1,
    "sliding_window": None,
    "use_bidirectional_attention": False,
    "use_sliding_window": False,
}


@dataclass(frozen=True)
class Fields:
    """Fields of a config, each checked as it is read; null counts as missing. ``where`` is for messages."""

    values: Mapping[str, Any]
    where: str = CONFIG

    def get(self, name: str, default: Any = None) -> Any:
        """The value that is there, or ``default``; not checked."""
        value = self.values.get(name)
        return default if value is None else value

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

    def part(self, name: str) -> Mapping[str, Any]:
        """An object of more fields; empty where there is none."""
        value = self.get(name, {})
        if not isinstance(value, Mapping):
            raise self.wrong(name, "an object or null", value)
        return value


class DecoderSettings:
    """Answers of a config to what a decoder needs to know.

    Parameters
    ----------
    config : mapping
        The contents of ``config.json``.

    Raises
    ------
    ValueError
        If the family is not one that runs, a field does not fit, or one that would change what is computed is
        not understood.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        fields = self.fields = Fields(config)
        try:
            facts, self.of_layer, read = decoder_of(config)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{CONFIG}: {error}") from None
        all_full = {"layer_types": ["full_attention"] * facts["count"]}
        for name, neutral in {**NEUTRAL, **all_full}.items():
            if name not in read and config.get(name) not in (None, neutral):
                right = f"{json.dumps(neutral)} in a {config['model_type']} model (no other is understood)"
                raise fields.wrong(name, right, config[name])
        self.d, self.inner, self.vocab = facts["d"], facts["inner"], facts["words"]
        self.heads, self.kv, self.head_size = facts["heads"], facts["kv_heads"], facts["width"]
        self.layers, self.tied = facts["count"], facts["tied"]
        self.from_one, self.scale, self.theta = facts["from_one"], facts["scale"], facts["theta"]
        self.context = fields.whole("max_position_embeddings", CONTEXT)
        self.eps = fields.real("rms_norm_eps", 1e-6)
        if self.head_size % 2:
            raise ValueError(f"{CONFIG}: head_dim must be even for rotary positions, got {self.head_size}")
        self.activation = choice(f"{CONFIG}: hidden_act", facts["activation"], ("silu", "gelu_pytorch_tanh"))
        if fields.get("hidden_activation", self.activation) != self.activation:
            raise fields.wrong(
                "hidden_activation", f"{self.activation!r} or null", config["hidden_activation"]
            )

    def rotary(self, layer: int) -> Rotary:
        """Angles of a layer's positions."""
        # "rope_parameters" since transformers 5, "rope_scaling" next to "rope_theta" before.
        given = {**self.fields.part("rope_scaling"), **self.fields.part("rope_parameters")}
        present = "rope_parameters" if self.fields.get("rope_parameters") else "rope_scaling"
        rope = Fields(given, where=f"{CONFIG}: {present}")
        d = self.head_size
        kind = choice(
            f"{rope.where}: rope_type",
            rope.get("rope_type", rope.get("type", "default")),
            ("default", "linear", "dynamic", "llama3", "yarn"),
        )
        # yarn divides by its logarithm
        within = self.fields if rope.get("rope_theta") is None else rope
        theta = within.real("rope_theta", self.theta, above=1.0 if kind == "yarn" else 0.0)
        if not self.of_layer[layer]["turned"]:
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
