"""Figures of an adapter: where it is strong, and how many directions it uses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import CYCLE, MUTED, axes, label_ends, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDED = 0.99  # the share of energy up to which directions count as used


def adapter_overview(spectra: Mapping[str, Array], *, title: str = "") -> Figure:
    """How strong the update of each layer is, and how many directions hold it.

    Parameters
    ----------
    spectra : mapping of str to ndarray
        The singular values of each module's update, by its path: ``Inspection.spectra``.
    title : str
        Above both; none by default.

    Returns
    -------
    Figure
        What was drawn on.

    See Also
    --------
    singular_spectrum : The singular values themselves.

    Examples
    --------
    >>> adapter_overview({"layers.0.q_proj": np.array([2.0, 0.5])}).get_axes()[0].get_xlabel()
    'layer'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    _norms(spectra, left)
    _spectra(spectra, right)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _norms(spectra: Mapping[str, Array], ax: Axes) -> None:
    """``||dW||_F`` against the layer, one line for each kind of module."""
    from matplotlib.ticker import MaxNLocator

    axes(ax)
    ends = []
    for kind, color, members in _kinds(spectra):
        points = sorted((_layer(path), float(np.linalg.norm(spectra[path]))) for path in members)
        layers, norms = zip(*points, strict=True)
        ax.plot(layers, norms, color=color, linewidth=1.4, marker="o", markersize=3.5)
        ends.append((norms[-1], kind, color))
    ax.set_ylim(bottom=0)
    label_ends(ax, ends)
    ax.set_xlabel("layer")
    ax.set_ylabel("norm of the update, $\\|\\Delta W\\|_F$")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _spectra(spectra: Mapping[str, Array], ax: Axes) -> None:
    """Share of the squared norm that the first directions hold: the median of each kind, and its range."""
    from matplotlib.ticker import MaxNLocator

    axes(ax)
    ax.axhline(NEEDED, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    longest = max((len(s) for s in spectra.values()), default=1)
    for kind, color, members in _kinds(spectra):
        kept = np.array([_kept(spectra[path], longest) for path in members])
        directions = np.arange(longest + 1)
        ax.fill_between(directions, kept.min(axis=0), kept.max(axis=0), color=color, alpha=0.12, linewidth=0)
        ax.plot(directions, np.median(kept, axis=0), color=color, linewidth=1.6, label=kind)
    label_line(ax, longest, NEEDED, f"{NEEDED:.0%}", MUTED)
    ax.legend(frameon=False, fontsize=9, loc="lower right", labelcolor="linecolor", handlelength=1.2)
    ax.set_xlim(0, longest)
    ax.set_ylim(0, 1.03)
    ax.set_xlabel("directions kept")
    ax.set_ylabel("share of $\\|\\Delta W\\|_F^2$")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


def _kinds(spectra: Mapping[str, Array]) -> list[tuple[str, str, list[str]]]:
    """(kind, colour, paths) of the modules that are finite and not zero; rare kinds share a muted colour."""
    groups: dict[str, list[str]] = {}
    for path, s in spectra.items():
        if len(s):
            groups.setdefault(path.rpartition(".")[2], []).append(path)
    colors = [*CYCLE, *[MUTED] * len(groups)]
    return [(kind, color, paths) for (kind, paths), color in zip(groups.items(), colors, strict=False)]


def _layer(path: str) -> int:
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", path)
    return int(found[1]) if found else 0


def _kept(s: Array, length: int) -> Array:
    """Shares of energy for 0 .. length directions; those beyond the rank keep all."""
    squares = np.zeros(length + 1)
    squares[1 : len(s) + 1] = np.square(s)
    kept: Array = np.cumsum(squares) / (squares.sum() or 1.0)
    return kept
