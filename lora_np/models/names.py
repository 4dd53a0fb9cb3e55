"""Look up the names that transformers and PEFT give to the modules of each model type.

``docs/_ext/names.py`` extracts them from ``conversion_mapping.py`` of transformers 5 and writes
them to ``data/_names.json``.
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
    """The location of a checkpoint's tensor in the model that transformers loads (live model).

    Parameters
    ----------
    parameter : str
        The name of the live parameter.
    expert : int or None
        The index of the expert that the tensor belongs to; None if the tensor is the whole
        parameter.
    part : int
        The index among the matrices stacked along the outputs: gate is 0 and up is 1.
    parts : int
        The number of stacked matrices.
    transposed : bool
        Whether the tensor's last two axes are exchanged.
    """

    parameter: str
    expert: int | None = None
    part: int = 0
    parts: int = 1
    transposed: bool = False


def names_are_known(config: Config) -> bool:
    """Return whether `Dialects` can translate the names of a model's tensors.

    Parameters
    ----------
    config : mapping
        The fields of a ``config.json``.

    Returns
    -------
    bool
        False if transformers renames tensors of this model type in ways that the data file does
        not list, or if the model has a vision or audio part and its type is not listed.

    See Also
    --------
    fused_names : Map names of separate experts to fused parameters.

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
    """Map names of separate experts' layers, which PEFT still accepts, to the fused parameters.

    Parameters
    ----------
    model_type : str
        The model type, as in a config.

    Returns
    -------
    mapping of str to str, or None
        From the name of a linear layer to the fused parameter. Empty if PEFT does not translate any
        name; None for an unknown model type.

    See Also
    --------
    names_are_known : Return whether a model's names can be translated.

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
    """Return PEFT's default targets for a model type; empty if there are none.

    Parameters
    ----------
    model_type : str
        The model type, as in a config.

    Returns
    -------
    tuple of str, or str
        Ends of names, or a regular expression for whole names.

    See Also
    --------
    fused_names : Map names of separate experts to fused parameters.

    Examples
    --------
    >>> default_targets("mixtral"), default_targets("qwen3_next")
    (('q_proj', 'v_proj'), ())
    """
    targets = names_table()["targets"].get(model_type, ())
    return targets if isinstance(targets, str) else tuple(targets)


@cache
def names_table() -> dict[str, Any]:
    """Read the naming rules of transformers and PEFT, by model type."""
    from lora_np.files import read_json  # imported late, because `lora_np.inject` does not need it

    data = read_json(Path(__file__).parent / "data" / "_names.json")
    for key, what in (("rules", "rules"), ("fused", "names")):
        data[key] = {kind: entry[what] for entry in data[key] for kind in entry["types"]}
    return data


def kinds_and_layers(paths: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Split each path into the name that all layers share and the layer's number.

    The shared name is the last part of the path, or the whole path without numbers if modules with
    other paths have the same last part.

    Parameters
    ----------
    paths : iterable of str
        Paths of modules.

    Returns
    -------
    dict of str to (str, str)
        From each path to its shared name and its layer; the layer is ``"none"`` outside of layers.

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
