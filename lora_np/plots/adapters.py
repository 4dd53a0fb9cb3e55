"""Figures of an adapter: where it is strong, and which rank is enough."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from lora_np.plots.pictures import heatmap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")  # a segment of a path that is a number
_FEW = 12  # columns, whose tiles have room for numbers


def adapter_overview(
    spectra: Mapping[str, np.ndarray],
    needed: Mapping[str, int],
    *,
    share: float = 0.99,
    title: str = "",
) -> Figure:
    """How strong the update of each layer is, and which rank is enough: a row for each kind of
    module.

    Parameters
    ----------
    spectra : mapping of str to ndarray
        The singular values of each module's update, by its path: ``Inspection.spectra``.
    needed : mapping of str to int
        The rank that is enough for each.
    share : float
        The share of the squared norm that it keeps.
    title : str
        Above all; none by default.

    Returns
    -------
    Figure
        Two maps, of ``||dW||_F`` and of the ranks. Where several modules of a kind are in one
        layer, such as experts, each tile has their median.

    See Also
    --------
    singular_spectrum : The singular values themselves.

    Examples
    --------
    >>> figure = adapter_overview({"layers.0.q_proj": np.array([2.0, 0.1])}, {"layers.0.q_proj": 1})
    >>> [text.get_text() for ax in figure.get_axes() for text in ax.texts]
    ['2', '1']
    """
    from matplotlib.figure import Figure

    kinds = module_kinds(path for path, s in spectra.items() if len(s))
    layers = {path: found[0] if (found := _INDEX.search(path)) else "none" for path in kinds}
    rows = list(dict.fromkeys(kinds.values()))
    columns = sorted(set(layers.values()), key=lambda layer: (layer == "none", len(layer), layer))
    figure = Figure(figsize=(12.0, 1.4 + 0.3 * len(rows)), layout="constrained")
    figure.suptitle(short_name(title, 110), fontsize=12)
    norms = {path: float(np.linalg.norm(spectra[path])) for path in kinds}
    panels = {
        "How strong is each update? Norm of $\\Delta W$": (norms, ".3g"),
        f"Which rank keeps {100 * share:g} % of the squared norm?": (needed, "g"),
    }
    for ax, (heading, (values, number)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        tiles: dict[tuple[int, int], list[float]] = {}
        for path, kind in kinds.items():
            place = rows.index(kind), columns.index(layers[path])
            tiles.setdefault(place, []).append(values[path])
        grid = np.full((len(rows), len(columns)), np.nan)
        for place, several in tiles.items():
            grid[place] = np.median(several)
        if tiles:
            heatmap(
                grid, rows=[short_name(row, 26) for row in rows], columns=columns, xlabel="layer",
                ylabel="",
                numbers=number if len(columns) <= _FEW else "", ax=ax,
            )  # fmt: skip
        ax.invert_yaxis()
        ax.set_title(heading, loc="left", fontsize=11)
    return figure


def module_kinds(paths: Iterable[str]) -> dict[str, str]:
    """The name that each module shares with those in other layers: its last name if no other kind
    has it.

    Parameters
    ----------
    paths : iterable of str
        Of modules.

    Returns
    -------
    dict of str to str
        From each path to its kind.

    See Also
    --------
    short_name : A name that is too long for a figure.

    Examples
    --------
    >>> paths = ["model.layers.0.q_proj", "model.layers.0.v_proj", "visual.blocks.0.q_proj"]
    >>> list(module_kinds(paths).values())
    ['model.layers.q_proj', 'v_proj', 'visual.blocks.q_proj']
    """
    kinds = {
        path: [part for part in path.split(".") if not part.isdigit()] or [path] for path in paths
    }
    last = Counter(parts[-1] for parts in set(map(tuple, kinds.values())))
    return {
        path: parts[-1] if last[parts[-1]] == 1 else ".".join(parts)
        for path, parts in kinds.items()
    }


def short_name(name: str, longest: int) -> str:
    """The end of a long name, after an ellipsis: names of tensors differ at their ends.

    Parameters
    ----------
    name : str
        Of a tensor, a module or a file.
    longest : int
        How many characters there is room for.

    Returns
    -------
    str
        At most ``longest`` characters.

    See Also
    --------
    module_kinds : Names without their layers.

    Examples
    --------
    >>> short_name("base_model.model.layers.0.self_attn.q_proj", 20)
    '….0.self_attn.q_proj'
    """
    return name if len(name) <= longest else "…" + name[len(name) - longest + 1 :]
