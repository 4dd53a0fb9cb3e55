"""Whether checkpoints and adapters are of the same base: otherwise a result is read, and does nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_np.adapters.peft_format import Adapter
from lora_np.hub import HubError, ModelDirectory, names_are_known, read_json

_INSIST = "; pass any_base=True (--any-base) to insist"
# Where both configs say it: versions of transformers leave some of these out.
_SAME = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads",
    # what changes outputs without being in the weights
    "head_dim", "num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok",
    "moe_intermediate_size", "hidden_act", "hidden_activation", "activation_function", "rms_norm_eps",
    "layer_norm_eps", "layer_norm_epsilon", "rope_theta", "rope_parameters", "layer_types", "sliding_window",
    "tie_word_embeddings", "n_embd", "n_layer", "n_head", "d_model", "num_layers",
)  # fmt: skip


def check_pair(
    base: ModelDirectory,
    tuned: ModelDirectory,
    shapes: Mapping[str, tuple[tuple[int, ...] | None, tuple[int, ...]]],
) -> None:
    """Refuse checkpoints of different models, one whose modules' names cannot be told, and other widths.

    A vocabulary may have grown, and a head be new.
    """
    _same(base.config, base.path, tuned.config, tuned.path)
    if not names_are_known(tuned.config):
        raise HubError(
            f"{tuned.path}: how transformers names the modules of a {tuned.config.get('model_type')!r} model "
            f"is not known here, so that an adapter might change nothing{_INSIST}"
        )
    for name, (one, other) in shapes.items():
        if one and one[1:] != other[1:]:
            raise _other(tuned.path, f"{name!r} has shape {other}, but {one} in {base.path}")


def check_base(base: ModelDirectory, adapter: Adapter) -> None:
    """Refuse a base of another kind than the one that the adapter names, where that is on this disk."""
    named = adapter.raw.get("base_model_name_or_path")
    config = Path(named, "config.json") if isinstance(named, str) and named else None
    if config is not None and config.is_file():
        _same(read_json(config), config.parent, base.config, base.path)


def check_bases(sources: Sequence[Adapter]) -> None:
    """Refuse adapters that name different bases."""
    known: dict[str, Adapter] = {}
    for source in sources:
        name = source.raw.get("base_model_name_or_path")
        if isinstance(name, str) and name:
            known.setdefault(os.path.normpath(name), source)
    if len(known) > 1:
        (one, first), (other, second), *_ = known.items()
        raise HubError(f"{second.path}: is for the base {other!r}, but {first.path} is for {one!r}{_INSIST}")


def _same(one: Mapping[str, Any], first: Path, other: Mapping[str, Any], second: Path) -> None:
    for place in ("", "text_config", "vision_config"):
        mine, theirs = (config.get(place) if place else config for config in (one, other))
        if not isinstance(mine, Mapping) or not isinstance(theirs, Mapping):
            continue
        for key in _SAME:
            ours, others = mine.get(key), theirs.get(key)
            if ours != others and None not in (ours, others):
                name = f"{place}.{key}" if place else key
                raise _other(second, f"{name} is {others!r}, but {ours!r} in {first}")


def _other(path: Path, why: str) -> HubError:
    return HubError(f"{path}: {why}: not the same base{_INSIST}")
