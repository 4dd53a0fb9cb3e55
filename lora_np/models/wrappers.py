"""What training leaves around the names of modules, and prefixes by which models differ.

``data/_wrappers.json`` lists both, each with the place where it was seen.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lora_np.files import read_json


class Rewrite(NamedTuple):
    """One thing that a key may have around the path of its module.

    Parameters
    ----------
    kind : str
        What rules of programs call it.
    what : str
        What it is, for messages.
    pattern : str
        An expression for it.
    to : str
        What takes its place.
    source : str
        Where it was seen.
    """

    kind: str
    what: str
    pattern: str
    to: str
    source: str


@cache
def rewrites() -> tuple[Rewrite, ...]:
    """List the wrappers, in the order in which they are removed.

    Returns
    -------
    tuple of Rewrite
        From the data.

    Examples
    --------
    >>> rewrites()[0].what
    "torch.compile's _orig_mod."
    """
    return tuple(Rewrite(**entry) for entry in _table()["rewrites"])


def unwrapped(name: str) -> tuple[str, list[Rewrite]]:
    """Write the name of an adapter's tensor as PEFT does, and list what was removed or added.

    Parameters
    ----------
    name : str
        In a file.

    Returns
    -------
    name : str
        Without wrappers.
    changes : list of Rewrite
        Empty if it was right.

    See Also
    --------
    renamed : Names for another model.

    Examples
    --------
    >>> name, changes = unwrapped("_orig_mod.base_model.model.layers.0.q.lora_A.default.weight")
    >>> name, [change.kind for change in changes]
    ('base_model.model.layers.0.q.lora_A.weight', ['wrapped', 'named'])
    """
    changes = []
    for rewrite in rewrites():
        name, times = re.subn(rewrite.pattern, rewrite.to, name)
        if times:
            changes.append(rewrite)
    return name, changes


def renamed(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Find the names in a model that differ from others in nothing but a known prefix.

    Parameters
    ----------
    names : iterable of str
        Paths of modules.
    known : collection of str
        Those of the model.

    Returns
    -------
    dict of str to str
        For each name that is not known, and has just one counterpart, that counterpart.

    Examples
    --------
    >>> renamed(["model.layers.0.q_proj", "lm_head"],
    ...     ["model.language_model.layers.0.q_proj", "lm_head"])
    {'model.layers.0.q_proj': 'model.language_model.layers.0.q_proj'}
    """
    prefixes, known = [entry["prefix"] for entry in _table()["prefixes"]], frozenset(known)
    counterparts = {}
    for name in (name for name in names if name not in known):
        ends = {name.removeprefix(prefix) for prefix in prefixes}
        others = {prefix + end for prefix in prefixes for end in ends} & known
        if len(others) == 1:
            counterparts[name] = min(others)
    return counterparts


def mlx_name(path: str) -> str:
    """Name a module as mlx-lm does, where a vision-language model is around a language model.

    Parameters
    ----------
    path : str
        In transformers.

    Returns
    -------
    str
        Others stay as they are.

    Examples
    --------
    >>> mlx_name("model.language_model.layers.0.q_proj"), mlx_name("model.layers.0.q_proj")
    ('language_model.model.layers.0.q_proj', 'model.layers.0.q_proj')
    """
    return path.replace("model.language_model.", "language_model.model.", 1)


@cache
def _table() -> dict[str, list[dict[str, str]]]:
    return read_json(Path(__file__).parent / "data" / "_wrappers.json")
