"""From a tensor in a checkpoint to the parameter of the live model that transformers makes of it.

They differ where transformers renames what it loads (vision-language models keep the names of older
versions), and where it stacks the experts of a layer in one array. ``data/_names.json`` holds its
rules; ``docs/names.py`` takes them from transformers 5, ``conversion_mapping.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lora_np.models.formulas import Config

# the paths of the parts of a composite model, after `model.` if it has a head
_HOMES = {
    "text_config": ("language_model", "text_model"),
    "vision_config": ("vision_tower", "visual", "vision_model", "image_tower", "video_tower"),
}
# what transformers renames in models of any type
_LEGACY = (
    (r"LayerNorm\.gamma", "LayerNorm.weight"),
    (r"LayerNorm\.beta", "LayerNorm.bias"),
    (r"^(model\.language_model|language_model\.model)\.model", "model.language_model"),
)


class Place(NamedTuple):
    """Where in the live model a tensor of a checkpoint goes.

    Parameters
    ----------
    parameter : str
        The live parameter.
    expert : int or None
        Which of its experts the tensor is; None for the whole of it.
    part : int
        Which of the maps that are stacked along the outputs: gate is 0 and up is 1.
    parts : int
        How many those are.
    transposed : bool
        Whether the tensor has its last two axes exchanged.
    """

    parameter: str
    expert: int | None = None
    part: int = 0
    parts: int = 1
    transposed: bool = False


class NameMap:
    """The rules for one model, from the types in its config.

    Parameters
    ----------
    config : mapping
        The fields of the checkpoint's ``config.json``.

    Examples
    --------
    >>> names = NameMap({"model_type": "gemma3"})
    >>> names.place("language_model.model.layers.0.mlp.up_proj.weight").parameter
    'model.language_model.layers.0.mlp.up_proj.weight'

    >>> mixtral = NameMap({"model_type": "mixtral"})
    >>> mixtral.place("model.layers.0.block_sparse_moe.experts.3.w3.weight")
    Place(parameter='model.layers.0.mlp.experts.gate_up_proj', expert=3, part=1, parts=2,
    transposed=False)
    """

    def __init__(self, config: Config) -> None:
        self._rules = _rules_of(tuple(_types(config)))
        architectures = config.get("architectures")
        name = architectures[0] if isinstance(architectures, list) and architectures else ""
        # a body saved without its head: its names begin one level deeper
        self._bare = str(name).endswith("Model") and "vision_config" in config

    def place(self, name: str) -> Place | None:
        """Find where the tensor ``name`` goes; None if transformers splits or permutes it."""
        place: Place | None = None
        for rule in self._rules:
            home = next((start for start in rule.homes if name.startswith(start)), None)
            if home is None:
                continue
            rest = name[len(home) :]
            matches = [pattern.search(rest) for pattern in rule.patterns]
            part, match = next(((i, hit) for i, hit in enumerate(matches) if hit), (0, None))
            if match is None:
                continue
            if rule.kind == "unread":
                return None
            to = rule.to.replace("\\1", match[1]) if "\\1" in rule.to else rule.to
            name = home + rest[: match.start()] + to + rest[match.end() :]
            if rule.kind != "rename":  # one stacking rule, after all renaming ones
                stacked = (
                    (int(match[1]), part, len(rule.patterns)) if rule.kind == "experts" else ()
                )
                place = Place(name, *stacked)._replace(transposed=not stacked)
                break
        place = place or Place(name)
        return place._replace(parameter=name.removeprefix("model.")) if self._bare else place


def names_are_known(config: Config) -> bool:
    """Tell whether ``NameMap`` knows a model's names: all but some with vision or audio.

    Parameters
    ----------
    config : mapping
        The fields of a ``config.json``.

    Returns
    -------
    bool
        False if transformers renames the model's type in ways that are not in the file, or if a
        vision or audio part has a type that is not in it.

    See Also
    --------
    fused_names : The same question of experts.

    Examples
    --------
    >>> names_are_known({"model_type": "llama"}), names_are_known({"model_type": "x",
    ...     "vision_config": {}})
    (True, False)
    """
    table, kind = _table(), str(config.get("model_type"))
    composite = any(key in config for key in ("vision_config", "audio_config"))
    return kind not in table["others"] and (
        not composite or kind in table["same"] or kind in table["rules"]
    )


@cache
def fused_names(model_type: str) -> Mapping[str, str] | None:
    """Return the names of separate experts that PEFT accepts for fused ones, and their meaning.

    Parameters
    ----------
    model_type : str
        As in a config.

    Returns
    -------
    mapping of str to str, or None
        From a name to a parameter; empty where PEFT translates none; None for a type that is not
        known here.

    See Also
    --------
    names_are_known : The same question of what transformers renames.

    Examples
    --------
    >>> fused_names("mixtral")["w1"], fused_names("llama")
    ('gate_up_proj', {})
    """
    table = _table()
    known = model_type in table["same"] or model_type in table["rules"]
    names: Mapping[str, str] | None = table["fused"].get(model_type, {} if known else None)
    return names


@cache
def default_targets(model_type: str) -> tuple[str, ...] | str:
    """Return what PEFT adapts by default in a model of this type; empty if it has no default.

    Parameters
    ----------
    model_type : str
        As in a config.

    Returns
    -------
    tuple of str, or str
        Ends of names, or an expression for whole ones.

    See Also
    --------
    fused_names : What some of them mean.

    Examples
    --------
    >>> default_targets("mixtral"), default_targets("qwen3_next")
    (('q_proj', 'v_proj'), ())
    """
    targets = _table()["targets"].get(model_type, ())
    return targets if isinstance(targets, str) else tuple(targets)


class _Rule(NamedTuple):
    kind: str
    patterns: tuple[re.Pattern[str], ...]
    to: str
    homes: tuple[str, ...]  # what a name must start with; the rule is for what follows


@cache
def _table() -> dict[str, Any]:
    from lora_np.files import read_json  # late: who injects reads no file

    data = read_json(Path(__file__).parent / "data" / "_names.json")
    for key, what in (("rules", "rules"), ("fused", "names")):
        data[key] = {kind: entry[what] for entry in data[key] for kind in entry["types"]}
    return data


def _types(config: Config) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The types of a model and of its parts, and where the names of each begin."""
    yield str(config.get("model_type")), ("",)
    for key, homes in _HOMES.items():
        inner = config.get(key)
        if isinstance(inner, Mapping) and inner.get("model_type") != config.get("model_type"):
            yield (
                str(inner.get("model_type")),
                tuple(f"{f}{home}." for home in homes for f in ("model.", "")),
            )


@cache
def _rules_of(types: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[_Rule, ...]:
    rules = []
    for kind, homes in types:
        for entry in _table()["rules"].get(kind, ()):
            what = next(key for key in ("rename", "experts", "transpose", "unread") if key in entry)
            texts = entry[what]
            if what == "experts":
                texts = [
                    text.replace("\\.", ".").replace(".*.", r".(\d{1,9}).") + "$" for text in texts
                ]
            rules.append(_Rule(what, tuple(map(re.compile, texts)), entry.get("to", ""), homes))
    rules += [_Rule("rename", (re.compile(text),), to, ("",)) for text, to in _LEGACY]
    return tuple(sorted(rules, key=lambda rule: rule.kind != "rename"))


def kinds_and_layers(paths: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Find the name that a module shares with those in other layers, and its layer's number.

    The name is the last one in its path, or all of them if modules of another kind end in it too.

    Parameters
    ----------
    paths : iterable of str
        Paths of modules.

    Returns
    -------
    dict of str to (str, str)
        For each path its kind and its layer, which is ``"none"`` outside of layers.

    Examples
    --------
    >>> paths = ["model.layers.0.q_proj", "model.layers.0.v_proj", "visual.blocks.0.q_proj"]
    >>> list(kinds_and_layers(paths).values())
    [('model.layers.q_proj', '0'), ('v_proj', '0'), ('visual.blocks.q_proj', '0')]
    """
    split = {path: path.split(".") for path in paths}
    named = {
        path: [part for part in parts if not part.isdecimal()] or parts
        for path, parts in split.items()
    }
    last = Counter(parts[-1] for parts in set(map(tuple, named.values())))
    return {
        path: (
            parts[-1] if last[parts[-1]] == 1 else ".".join(parts),
            next((part for part in split[path] if part.isdecimal()), "none"),
        )
        for path, parts in named.items()
    }
