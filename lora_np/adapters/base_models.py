"""Check that checkpoints and adapters have the same base model.

An adapter of another base may load without an error, and without any effect.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_np.adapters.adapter import Adapter
from lora_np.adapters.formats import weights_file
from lora_np.checks import StrPath
from lora_np.files import FileError, open_regular, read_json
from lora_np.hub import located
from lora_np.models import OpenModel, family_names, family_of, names_are_known

MERGED = "merged_adapters"  # the key of a merged model's config that lists its adapters' digests
_INSIST = "; pass any_base=True (--any-base) to insist"
# Fields that must be equal if both configs have them. A field may be missing, because some versions
# of transformers omit fields.
_SAME = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads",
    # some of these settings change the outputs without changing the shape of a weight
    "head_dim", "num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok",
    "moe_intermediate_size", "hidden_act", "hidden_activation", "activation_function",
    "rms_norm_eps",
    "layer_norm_eps", "layer_norm_epsilon", "rope_theta", "rope_parameters", "layer_types",
    "sliding_window",
    "tie_word_embeddings", "n_embd", "n_layer", "n_head", "d_model", "num_layers",
)  # fmt: skip
# Matches the end of a class name of transformers, after the family: LMHeadModel in GPT2LMHeadModel,
# TextModel in Gemma3TextModel.
_TASK = re.compile(r"(Text|Vision|Audio|Language|LMHead|DoubleHeads|Encoder)*(Model|For[A-Z]\w*)$")


def check_pair(
    base: OpenModel,
    tuned: OpenModel,
    shapes: Mapping[str, tuple[tuple[int, ...] | None, tuple[int, ...]]],
) -> None:
    """Raise an error if two checkpoints differ in model or width, or have unknown module names.

    The vocabulary may have grown, and a head may have been added.
    """
    _same(base.config, base.path, tuned.config, tuned.path)
    if not names_are_known(tuned.config):
        raise FileError(
            f"{tuned.path}: the module names of a {tuned.config.get('model_type')!r} model are not "
            f"known here, so an adapter might change nothing{_INSIST}"
        )
    for name, (one, other) in shapes.items():
        if one and one[1:] != other[1:]:
            raise _other(tuned.path, f"{name!r} has shape {other}, but {one} in {base.path}")


def check_base(base: OpenModel, adapter: Adapter) -> tuple[str, ...]:
    """Raise an error if the adapter is for another base or already merged; note an unknown base.

    The adapter's base is known if the adapter gives a path on this disk, or a class that PEFT
    recorded. A name on the hub proves nothing, but if its last part is the name of the base's
    directory, there is no note.
    """
    config, path = base.config, base.path
    if MERGED in config and adapter.path and digest_of(adapter.path) in str(config[MERGED]):
        raise FileError(f"{path}: {adapter} has been merged into it already{_INSIST}")
    theirs, ours = _class_of(adapter), _families(config)
    if theirs and ours and theirs[1] not in ours:
        kind = config.get("model_type") or " or ".join(map(str, config["architectures"]))
        raise _other(path, f"is of type {kind!r}, but the adapter was made for a {theirs[0]}")
    named = adapter.base or ""
    home = located(named)
    config_path = home / "config.json"
    if named and os.path.isfile(config_path):
        wanted = config if path == home else read_json(config_path)
        if {"Llama", "Mistral"} <= ours and wanted.get("model_type") == "mistral":
            wanted = {**wanted, "model_type": "llama"}
        _same(wanted, config_path.parent, config, path)
    elif not (theirs and ours) and (not named or Path(named).name != Path(path).name):
        which = (
            f"names its base {named!r}, which is not here" if named else "does not name its base"
        )
        return (f"the adapter {which}: only the names and shapes of modules were compared",)
    return ()


def check_bases(sources: Sequence[Adapter]) -> None:
    """Raise an error if adapters name different bases or were made for different model families."""
    classes: dict[str, tuple[Adapter, str]] = {}
    bases: dict[str, tuple[Adapter, str]] = {}
    for source in sources:
        if known := _class_of(source):
            classes.setdefault(known[1], (source, f"a {known[0]}"))
        if source.base:
            name = os.path.normpath(source.base)
            bases.setdefault(name, (source, f"the base {name!r}"))
    for different in (classes, bases):
        if len(different) > 1:
            (first, one), (second, other), *_ = different.values()
            raise FileError(f"{second}: is for {other}, but {first} is for {one}{_INSIST}")


def digest_of(adapter: Path) -> str:
    """Compute the SHA-256 digest of an adapter's weights file."""
    with open_regular(weights_file(adapter)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _class_of(adapter: Adapter) -> tuple[str, str] | None:
    """Return the base's class and family; None if the adapter names no class of transformers."""
    mapping = adapter.raw.get("auto_mapping")
    mapping = mapping if isinstance(mapping, Mapping) else {}
    name, library = str(mapping.get("base_model_class")), str(mapping.get("parent_library"))
    family = _family(name) if library.startswith("transformers.models.") else ""
    return (name, family) if family else None


def _family(name: str) -> str:
    """Return the model family in a class name of transformers, or "" if there is none."""
    task = _TASK.search(name)
    return name[: task.start()] if task and not name.startswith("Auto") else ""


def _families(config: Mapping[str, Any]) -> set[str]:
    """Return the families that a base may belong to; the set is empty if its config names none."""
    kind, architectures = config.get("model_type"), config.get("architectures")
    families = (
        {_family(str(name)) for name in architectures} if isinstance(architectures, list) else set()
    )
    if str(kind) in family_names():
        families.add(_family(f"{family_of(str(kind)).classes}Model"))
    if kind == "llama" and not architectures:  # llama.cpp also calls Mistral's models llama
        families.add("Mistral")
    return families - {""}


def _same(one: Mapping[str, Any], first: Path, other: Mapping[str, Any], second: StrPath) -> None:
    """Raise an error if two configs differ in a field of ``_SAME`` that both have."""
    for place in ("", "text_config", "vision_config"):
        mine, theirs = (config.get(place) if place else config for config in (one, other))
        if not isinstance(mine, Mapping) or not isinstance(theirs, Mapping):
            continue
        for key in _SAME:
            ours, others = mine.get(key), theirs.get(key)
            # allow a tied head in the first model and not in the second, because adapters for a
            # tied head also fit a separate one
            same = (
                None in (ours, others) or ours == others or (key == "tie_word_embeddings" and ours)
            )
            if isinstance(ours, float) and isinstance(others, float):
                # compare to 6 digits, because GGUF stores floats in single precision
                same = math.isclose(ours, others, rel_tol=1e-6)
            if not same:
                name = f"{place}.{key}" if place else key
                raise _other(second, f"{name} is {others!r}, but {ours!r} in {first}")


def _other(path: StrPath, why: str) -> FileError:
    return FileError(f"{path}: {why}: not the same base{_INSIST}")
