"""Compute the angles by which rotary embeddings rotate pairs of entries, from a config."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from lora_np.checks import Array, choice, number, shown, whole_number
from lora_np.language.composed import Operand
from lora_np.models import LayerConfig

Fields = Mapping[str, Any]
Made = tuple[Array, dict[str, Any]]
KINDS = {"full_attention", "sliding_attention"}  # layer types that may have separate parameters

# the supported parameters of rotary embeddings
ROPE = {
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings",
    "factor", "alpha", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor",
    "beta_fast", "beta_slow", "attention_factor", "finetuned", "mscale", "mscale_all_dim",
    "truncate",
}  # fmt: skip


@dataclass(frozen=True)
class Rotary:
    """The angles of a rotary embedding, as transformers computes them.

    Parameters
    ----------
    frequencies : tuple of float
        The angle by which each of d/2 pairs rotates from one token to the next.
    attention : float
        A factor on cos and sin (yarn, longrope).
    trained : int
        The length of the longest text with these angles, in tokens; 0 if all texts have them.
    longer : tuple of float
        The frequencies in longer texts (longrope).
    factor : float
        How fast the frequencies shrink in longer texts (dynamic).
    reach : float
        The length of the longest text that the angles support, in tokens.
    width : int
        The number of entries of a head, of which the first d rotate; by default d.
    neighbours : bool
        Whether pair i consists of entries 2i and 2i + 1, rather than i and i + d/2.

    Examples
    --------
    >>> cos, sin = Rotary((1.0, 0.1)).turns(slice(1, 2), 2, np.dtype(float))
    >>> cos.round(3), sin.round(3)
    (array([[[0.54 , 0.995, 0.54 , 0.995]]]), array([[[-0.841, -0.1  ,  0.841,  0.1  ]]]))
    """

    frequencies: tuple[float, ...]
    attention: float = 1.0
    trained: int = 0
    longer: tuple[float, ...] = ()
    factor: float = 1.0
    reach: float = 0.0
    width: int = 0
    neighbours: bool = False

    def halves(self, x: Operand) -> Operand:
        """Reorder heads (..., width) so that entry i rotates with entry ``i + width/2``.

        Scores do not change, because queries and keys are reordered alike.

        Examples
        --------
        >>> Rotary((1.0, 0.1), width=6).halves(np.arange(6))
        array([0, 1, 4, 2, 3, 5])
        >>> Rotary((1.0, 0.1), neighbours=True).halves(np.arange(4))
        array([0, 2, 1, 3])
        """
        if self.neighbours:
            pairs = x.reshape(*x.shape[:-1], -1, 2)
            return np.concatenate([pairs[..., 0], pairs[..., 1]], axis=-1)
        half = len(self.frequencies)
        if self.width <= 2 * half:
            return x
        cuts = (0, half, 2 * half, half + self.width // 2, self.width)
        first, second, third, fourth = (x[..., a:b] for a, b in pairwise(cuts))
        return np.concatenate([first, third, second, fourth], axis=-1)

    def turns(
        self, where: slice | Array, longest: int | Array, dtype: np.dtype[Any]
    ) -> tuple[Array, Array]:
        """Return cosines and sines of the angles at ``where``, of shape (*positions, 1, width).

        Parameters
        ----------
        where : slice or ndarray of int
            The positions, all below ``longest``.
        longest : int or ndarray of int
            The length of the text so far, on which the angles may depend; an array has the length
            of each token's own sequence.
        dtype : dtype
        """
        size = 1 << (int(np.max(longest)) - 1).bit_length()
        if isinstance(where, slice) or not self.trained:
            over = int(np.max(longest)) if self.trained else 0
            cos, sin = table(self, size, over * (over > self.trained), dtype)
            return cos[where], sin[where]
        longest = longest * (np.asarray(longest) > self.trained)
        shape = (*where.shape, 1, max(self.width, 2 * len(self.frequencies)))
        cos, sin = np.empty((2, *shape), dtype)
        for over in np.unique(longest):
            own = longest == over
            for turn, values in zip((cos, sin), table(self, size, int(over), dtype), strict=True):
                turn[own] = values[where[own]]
        return cos, sin


@functools.lru_cache(maxsize=16)
def table(
    rotary: Rotary, size: int, longest: int, dtype: np.dtype[np.floating]
) -> tuple[Array, Array]:
    """Precompute ``[cos, cos]`` and ``[-sin, sin]`` of the angles at each position."""
    frequencies, half = np.array(rotary.frequencies), len(rotary.frequencies)
    if longest and rotary.longer:
        frequencies = np.array(rotary.longer)
    elif longest:
        stretch = rotary.factor * longest / rotary.trained - (rotary.factor - 1)
        frequencies *= stretch ** -(np.arange(half) / (half - 1))
    # compute the angles in the model's precision; in float32, this rounds as transformers does
    angles = np.arange(size, dtype=dtype)[:, None, None] * frequencies.astype(dtype)
    cos, sin = (f(angles) * dtype.type(rotary.attention) for f in (np.cos, np.sin))
    # pad for the entries that do not rotate: their cosines are 1, and their sines are 0
    rest = [(0, 0), (0, 0), (0, max(rotary.width // 2 - half, 0))]
    cos, sin = np.pad(cos, rest, constant_values=1), np.pad(sin, rest)
    return np.concatenate([cos, cos], axis=-1), np.concatenate([-sin, sin], axis=-1)


def stated(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not null."""
    return {name: value for name, value in fields.items() if value is not None}


def real(fields: Fields, name: str, default: float | None = None, *, above: float = 0.0) -> float:
    """Read a field that must be a finite number above ``above``."""
    value = fields.get(name, default)
    if value is None:
        raise ValueError(f"{name} must be a number above {above:g}, but it is missing")
    return number(name, value, minimum=above, open_minimum=True)


def numbers(fields: Fields, name: str, count: int) -> tuple[float, ...]:
    """Read a field that must be a list of ``count`` numbers above zero."""
    values = fields.get(name)
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise ValueError(f"{name} must be a list of {count} numbers, got {shown(values)}")
    return tuple(number(name, value, open_minimum=True) for value in values)


def rotary_of(config: Fields, layer: LayerConfig, context: int) -> Rotary | None:
    """Build the rotary embedding of a layer from the config; return None if it uses none."""
    if not layer.uses_rotary:
        return None
    kind, rope = rope_of(config, layer, context)
    frequencies, parts = MADE[kind](rope)
    neighbours = layer.pairs == "neighbours"
    parts = {"reach": rope.trained * rope.factor, "neighbours": neighbours, **parts}
    return Rotary(tuple(frequencies.tolist()), width=layer.width, **parts)


class RopeParameters(NamedTuple):
    """The parameters that rotary embeddings of all kinds share."""

    fields: Fields
    layer: LayerConfig
    context: int  # the context length of the model
    theta: float
    d: int  # the number of entries of a head that rotate
    trained: int  # the context length before any extension
    factor: float  # the factor by which the context was extended
    exponents: Array  # -2i/d for pair i
    frequencies: Array  # pair i rotates by theta^(-2i/d) per token

    def stretched(self, kept: Array) -> Array:
        """Interpolate from the frequencies / ``factor`` (``kept`` = 0) to the frequencies (1)."""
        return kept * self.frequencies + (1 - kept) * self.frequencies / self.factor


def rope_of(config: Fields, layer: LayerConfig, context: int) -> tuple[str, RopeParameters]:
    """Read the kind of a layer's rotary embedding, and the parameters that all kinds share."""
    fields = parameters_of(config, layer)
    kind = fields.get("rope_type", fields.get("type", "default"))
    kind = {"su": "longrope"}.get(kind, kind) if isinstance(kind, str) else kind
    kind = "alpha" if kind == "dynamic" and "alpha" in fields else kind
    choice("rope_type", kind, layer.rope_kinds)
    least = float(kind == "yarn")  # yarn divides by log(theta), so theta must be above 1
    theta = fields.get("rope_theta", layer.theta)
    theta = number("rope_theta", theta, minimum=least, open_minimum=True)
    part = real(fields, "partial_rotary_factor", layer.part or 1.0)
    if part != 1.0 and layer.part is False:
        raise ValueError(
            f"partial_rotary_factor must be 1 in a {config['model_type']} model, got {part:g}"
        )
    width = layer.rotary_width
    d = int(width * part)
    if d % 2 or layer.width % 2 or not 0 < d <= layer.width:
        raise ValueError(
            f"head_dim must be even for rotary positions, got {width}, of which {d} turn"
            " (by default it is hidden_size / num_attention_heads)"
        )
    if d == 2 and kind in ("dynamic", "alpha"):
        raise ValueError(f"head_dim must be above 2 for {kind} rotary positions, got 2")
    factor, trained, name = 1.0, context, "original_max_position_embeddings"
    if kind != "default":
        trained = whole_number(name, layer.original or fields.get(name, context))
        factor = real(fields, "factor", context / trained)
    pairs = -np.arange(0, d, 2) / d
    return kind, RopeParameters(
        fields, layer, context, theta, d, trained, factor, pairs, theta**pairs
    )


def longrope(rope: RopeParameters) -> Made:
    """Divide each pair's frequency by its own factor, one for short and one for long texts."""
    short, long = (
        np.array(numbers(rope.fields, f"{length}_factor", rope.d // 2))
        for length in ("short", "long")
    )
    stretch = 1.0
    if rope.factor > 1 and rope.trained > 1:
        stretch = 1 + math.log(rope.factor) / math.log(rope.trained)
    attention = real(rope.fields, "attention_factor", stretch**0.5)
    longer = tuple((rope.frequencies / long).tolist())
    return rope.frequencies / short, {
        "attention": attention, "trained": rope.trained, "longer": longer,
    }  # fmt: skip


def llama3(rope: RopeParameters) -> Made:
    """Lower the frequencies of pairs that complete few rotations within the original context."""
    low = real(rope.fields, "low_freq_factor")
    high = real(rope.fields, "high_freq_factor", above=low)
    rotations = rope.trained * rope.frequencies / (2 * math.pi)
    return rope.stretched(np.clip((rotations - low) / (high - low), 0, 1)), {}


def yarn(rope: RopeParameters) -> Made:
    """Lower the frequencies of pairs with few rotations in the original context; scale scores."""
    fields, d = rope.fields, rope.d
    slow, fast = real(fields, "beta_slow", 1), real(fields, "beta_fast", 32)
    # indices, not yet rounded, of the pairs that rotate ``fast`` and ``slow`` times in the context
    first, last = (
        math.log(rope.trained / (2 * math.pi * n)) / math.log(rope.theta) * d / 2
        for n in (fast, slow)
    )
    truncate = fields.get("truncate", True)
    if not isinstance(truncate, bool):
        raise ValueError(f"truncate must be true or false, got {shown(truncate)}")
    # if each kind of layer has its own parameters, transformers ignores `truncate` and rounds
    if truncate or rope.layer.rope_each:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, d - 1)
    last += 0.001 * (first == last)  # an empty range would cause a division by zero
    kept = 1 - np.clip((np.arange(d // 2) - first) / (last - first), 0, 1)
    scales = [number(name, fields.get(name, 0), minimum=0) for name in ("mscale", "mscale_all_dim")]
    scales = scales if all(scales) else [1.0]
    above, *below = (1 + 0.1 * scale * math.log(max(rope.factor, 1)) for scale in scales)
    attention = real(fields, "attention_factor", above / math.prod(below))
    return rope.stretched(kept), {"attention": attention}


def alpha(rope: RopeParameters) -> Made:
    """Multiply theta by a power of ``alpha``, which lowers the lowest frequencies most."""
    theta = rope.theta * real(rope.fields, "alpha") ** (rope.d / (rope.d - 2))
    return theta**rope.exponents, {}


# maps each kind to a function that returns the frequencies and other fields of `Rotary`
MADE: dict[str, Callable[[RopeParameters], Made]] = {
    "default": lambda rope: (rope.frequencies, {}),
    "linear": lambda rope: (rope.frequencies / rope.factor, {}),
    "alpha": alpha,
    "dynamic": lambda rope: (
        rope.frequencies,
        {"trained": rope.context, "factor": rope.factor, "reach": math.inf},
    ),
    "longrope": longrope,
    "llama3": llama3,
    "yarn": yarn,
}


def parameters_of(config: Fields, layer: LayerConfig) -> Fields:
    """Read the parameters of a layer's rotary embedding; raise an error for unknown ones."""
    # transformers 5 writes "rope_parameters"; older versions write "rope_scaling" and "rope_theta"
    both = {"rope_parameters": layer.rope, "rope_scaling": {}, **config}
    rope, scaling = both["rope_parameters"], both["rope_scaling"]
    for name in ("rope_parameters", "rope_scaling"):
        if not isinstance(both[name], Mapping):
            raise ValueError(f"{name} must be an object or null, got {shown(both[name])}")
    if layer.rope_each:
        if rope.keys() - KINDS:
            raise ValueError(
                f"rope_parameters must have an object for each of {sorted(KINDS)},"
                f" got {shown(rope)}"
            )
        rope = stated(rope).get(layer.kind, {"rope_type": "default"})
        rope = {**rope, **scaling} if layer.kind == "full_attention" else rope
    elif scaling:
        if rope not in ({}, layer.rope, scaling):
            warnings.warn(
                "rope_parameters is ignored beside rope_scaling, as in transformers", stacklevel=2
            )
        rope = scaling
    if unknown := sorted(rope.keys() - ROPE):
        raise ValueError(f"{unknown[0]} is not understood among the parameters of rotary positions")
    return stated(rope)
