"""The kind of a module that no family describes: one rule, from names and the shapes in headers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, get_args

from lora_np.models.spec import Kind, ModuleSpec

# the last names of tables that are looked up rather than multiplied
_EMBEDDINGS = ("wte", "wpe", "shared", "embed_in", "relative_attention_bias", "token_embd", "tok_embeddings")


@cache
def kinds_by_type() -> dict[str, Any]:
    """For each type of `docs.causal`: the modules of which `guess` is wrong, or why the type is refused."""
    data: dict[str, Any] = json.loads((files("lora_np.models") / "data" / "_kinds.json").read_text("utf-8"))
    return data


def starred(name: str) -> str:
    """``name`` from its last index on, which is the same in all layers."""
    return re.split(r"(?:^|\.)\d+\.", name)[-1]


def guess(name: str, shape: tuple[int, ...]) -> Kind:
    """What a module with a ``weight`` of this shape may be."""
    last = name.rpartition(".")[2]
    if len(shape) == 1:
        return "norm"
    if len(shape) == 2:
        return "embedding" if last in _EMBEDDINGS or "embed" in last.removeprefix("embed_out") else "linear"
    return "convolution" if len(shape) in (3, 4, 5) else "parameter"


def judged(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    kinds: Mapping[str, str],
    fused: Mapping[str, str],
    told: Mapping[str, Kind] | None = None,
) -> ModuleSpec:
    """The module that the parameter ``name`` belongs to, by the rule for modules that no family describes.

    Parameters
    ----------
    name : str
        In the live model.
    shapes : mapping of str to tuple of int
        Of all parameters, by their names in the live model.
    kinds : mapping of str to str
        An entry of `kinds_by_type`.
    fused : mapping of str to str
        As `fused_names` gives it.
    told : mapping of str to str, optional
        The kinds of modules with misleading names, by the ends of their names.
    """
    owner, _, last = name.rpartition(".")
    if (kind := kinds.get(starred(name), "")) in _EXPERTS:
        parts = tuple(old for old, new in fused.items() if new == last)
        return ModuleSpec(name, "experts", shapes[name], parts=parts or (last,), transposed=kind != "experts")
    weight, bias = shapes.get(f"{owner}.weight"), shapes.get(f"{owner}.bias")
    whole = owner and last in ("weight", "bias") and kinds.get(starred(f"{owner}.weight")) not in _EXPERTS
    if weight is None or not whole:
        return ModuleSpec(name, "parameter", shapes[name])
    chosen = next((kind for end, kind in (told or {}).items() if f".{owner}".endswith(f".{end}")), None)
    said = chosen or kinds.get(starred(owner), "")
    kind = said if said in get_args(Kind) else guess(owner, weight)
    # GPT-2's Conv1D stores its weight as (d_in, d_out); its bias reveals that
    turned = kind == "linear" and bias is not None and bias == weight[1:] != weight[:1]
    weight = weight[::-1] if turned else weight
    fits = bias == weight[:1]
    if kind != said and bias is not None and not fits:
        kind = "parameter"  # such as a norm of each head, or a transposed convolution
    if kind == "parameter" or (last == "bias" and not fits):
        return ModuleSpec(name, "parameter", shapes[name])
    return ModuleSpec(owner, kind, weight, bias=fits, transposed=turned)  # type: ignore[arg-type]


_EXPERTS = ("experts", "transposed experts")
