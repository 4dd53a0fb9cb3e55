"""What transformers and PEFT call modules of each type of model, and what they mean by it.

``data/_names.json`` holds it; ``docs/_ext/names.py`` takes it from transformers 5,
``conversion_mapping.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lora_np.models.formulas import Config


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


def names_are_known(config: Config) -> bool:
    """Tell whether `Dialects` knows those of a model: all but some with vision or audio.

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
    table, kind = names_table(), str(config.get("model_type"))
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
    table = names_table()
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
    targets = names_table()["targets"].get(model_type, ())
    return targets if isinstance(targets, str) else tuple(targets)


@cache
def names_table() -> dict[str, Any]:
    """Read the rules of transformers and PEFT, by model type."""
    from lora_np.files import read_json  # late: who injects reads no file

    data = read_json(Path(__file__).parent / "data" / "_names.json")
    for key, what in (("rules", "rules"), ("fused", "names")):
        data[key] = {kind: entry[what] for entry in data[key] for kind in entry["types"]}
    return data


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
