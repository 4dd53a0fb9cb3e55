"""Draw an overview of an adapter: the norm and the sufficient rank of each update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lora_np.plots.pictures import heatmap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEW = 12  # with more columns, tiles have no room for numbers


def adapter_overview(
    spectra: Mapping[str, np.ndarray],
    needed: Mapping[str, int],
    places: Mapping[str, tuple[str, str]],
    *,
    energy: float = 0.99,
    title: str = "",
) -> Figure:
    """Draw the norm and the sufficient rank of each update, with a row for each kind of module.

    Parameters
    ----------
    spectra : mapping of str to ndarray
        The singular values of each module's update, by its path, from ``Inspection.spectra``.
    needed : mapping of str to int
        The sufficient rank of each module.
    places : mapping of str to (str, str)
        The kind and the layer of each module, from `lora_np.models.kinds_and_layers`.
    energy : float
        The share of the squared norm that the sufficient rank keeps.
    title : str
        The title of the figure; none by default.

    Returns
    -------
    Figure
        Two heat maps, of ``||dW||_F`` and of the ranks. If a layer has several modules of a kind,
        such as experts, the tile shows their median.

    See Also
    --------
    singular_spectrum : Draw the singular values.

    Examples
    --------
    >>> path, s = "layers.0.q_proj", np.array([2.0, 0.1])
    >>> figure = adapter_overview({path: s}, {path: 1}, {path: ("q_proj", "0")})
    >>> [text.get_text() for ax in figure.get_axes() for text in ax.texts]
    ['2', '1']
    """
    from matplotlib.figure import Figure

    drawn = {path: places[path] for path, s in spectra.items() if len(s)}
    rows = list(dict.fromkeys(kind for kind, _ in drawn.values()))
    layers = {layer for _, layer in drawn.values()}
    columns = sorted(layers, key=lambda layer: (layer == "none", len(layer), layer))
    figure = Figure(figsize=(12.0, 1.4 + 0.3 * len(rows)), layout="constrained")
    figure.suptitle(short_name(title, 110), fontsize=12)
    norms = {path: float(np.linalg.norm(spectra[path])) for path in drawn}
    panels = {
        "How strong is each update? Norm of $\\Delta W$": (norms, ".3g"),
        f"Which rank keeps {100 * energy:g} % of the squared norm?": (needed, "g"),
    }
    for ax, (heading, (values, number)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        tiles = [
            [
                np.median(
                    [values[path] for path, at in drawn.items() if at == (row, column)] or np.nan
                )
                for column in columns
            ]
            for row in rows
        ]
        if tiles:
            heatmap(
                np.array(tiles), rows=[short_name(row, 26) for row in rows], columns=columns,
                xlabel="layer", ylabel="",
                numbers=number if len(columns) <= _FEW else "", ax=ax,
            )  # fmt: skip
        ax.invert_yaxis()
        ax.set_title(heading, loc="left", fontsize=11)
    return figure


def short_name(name: str, longest: int) -> str:
    """Shorten a long name by omitting its beginning, because tensor names differ at the end.

    Parameters
    ----------
    name : str
        The name of a tensor, a module or a file.
    longest : int
        The largest number of characters.

    Returns
    -------
    str
        A name of at most ``longest`` characters.

    See Also
    --------
    adapter_overview : Draw a figure with such names.

    Examples
    --------
    >>> short_name("base_model.model.layers.0.self_attn.q_proj", 20)
    '….0.self_attn.q_proj'
    """
    return name if len(name) <= longest else "…" + name[len(name) - longest + 1 :]
