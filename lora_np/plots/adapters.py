"""Figures of an adapter: where it is strong, and which rank is enough."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from lora_np.plots.style import ACCENT, CYCLE, INK, LORA, MUTED, axes, label_ends, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")  # a segment of a path that is a number
_KINDS = 12  # with a line each; the others share one
_NORM = "norm of the update, $\\|\\Delta W\\|_F$"
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
Spectra = Mapping[str, np.ndarray]


def adapter_overview(
    spectra: Spectra, needed: Mapping[str, int], *, share: float = 0.99, title: str = ""
) -> Figure:
    """How strong the update of each layer is, and which rank is enough.

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
        With `update_norms` and `update_ranks`.

    See Also
    --------
    singular_spectrum : The singular values themselves.

    Examples
    --------
    >>> figure = adapter_overview({"layers.0.q_proj": np.array([2.0, 0.1])}, {"layers.0.q_proj": 1})
    >>> [ax.get_title(loc="left") for ax in figure.get_axes()][1]
    'Which rank keeps 99 % of the squared norm?'
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    update_norms(spectra, ax=left).set_title("How strong is each update?", loc="left", fontsize=11)
    ranks = {path: (needed[path], len(s)) for path, s in spectra.items() if len(s)}
    update_ranks(ranks, ax=right).set_title(
        f"Which rank keeps {100 * share:g} % of the squared norm?", loc="left", fontsize=11
    )
    if title:
        figure.suptitle(short_name(title, 110), fontsize=12)
    return figure


def update_norms(spectra: Spectra, *, ax: Axes | None = None) -> Axes:
    """``||dW||_F`` against the layer, a line for each kind of module; bars where there is but one layer.

    Parameters
    ----------
    spectra : mapping of str to ndarray
        The singular values of each module's update, by its path.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        Where several modules of a kind are in one layer, such as experts, with their median and range.

    See Also
    --------
    update_ranks : How many directions each kind needs.
    """
    from matplotlib.ticker import MaxNLocator

    ax = axes(ax)
    norms = {path: float(np.linalg.norm(s)) for path, s in spectra.items() if len(s)}
    layers = {path: int(found[0]) if (found := _INDEX.search(path)) else None for path in norms}
    numbers = {layer for layer in layers.values() if layer is not None}
    if len(numbers) < 2:
        _bars(ax, norms)
        ax.set_xlabel(_NORM)
        return ax
    first, last = min(numbers), max(numbers)
    outside = None in layers.values()
    right = last + max(1.0, 0.08 * (last - first)) if outside else float(last)
    ends = []
    for kind, (color, dash, members) in _kinds(norms).items():
        at: dict[float, list[float]] = {}
        for path in members:
            layer = layers[path]
            at.setdefault(right if layer is None else layer, []).append(norms[path])
        x = np.array(sorted(at))
        low, middle, high = (
            np.array([reduce(at[place]) for place in x]) for reduce in (np.min, np.median, np.max)
        )
        ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        ax.plot(x, middle, color=color, ls=dash, lw=1.5, marker="o", markersize=3, clip_on=False)
        ax.plot([x[-1], right], [middle[-1]] * 2, color=color, ls=":", lw=0.8)  # leads to the label
        ends.append((float(middle[-1]), short_name(kind, 20), color))
    ax.set_ylim(bottom=0)
    ax.set(xlim=(first - 0.02 * (right - first), right), xlabel="layer", ylabel=_NORM)
    label_ends(ax, ends)
    ticks = [x for x in MaxNLocator(6, integer=True).tick_values(first, last) if first <= x <= last]
    names = [f"{x:.0f}" for x in ticks]
    if outside:
        ticks = [x for x in ticks if x < last - 0.5] + [right]
        names = [*names[: len(ticks) - 1], "no layer"]
    ax.set_xticks(ticks, names)
    return ax


def update_ranks(ranks: Mapping[str, tuple[int, int]], *, ax: Axes | None = None) -> Axes:
    """The rank that is enough, by kind of module: median and range, next to the rank in the file.

    Parameters
    ----------
    ranks : mapping of str to (int, int)
        The rank that each module needs, and that it has, by its path.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        One row for each kind; a bar for a kind with one module.

    See Also
    --------
    singular_spectrum : What each rank keeps.
    """
    ax = axes(ax)
    kinds = _kinds(ranks)
    for row, (_, _, members) in enumerate(kinds.values()):
        needed, given = zip(*[ranks[path] for path in members], strict=True)
        middle = float(np.median(needed))
        ax.barh(row, max(given), height=0.4, color=MUTED, alpha=0.25)
        if len(members) == 1:
            ax.barh(row, middle, height=0.4, color=ACCENT)
        else:
            ax.barh(row, max(needed) - min(needed), left=min(needed), height=0.4, color=ACCENT, alpha=0.4)
            ax.plot(middle, row, "o", color=ACCENT, markersize=6)
        text = f"{middle:g} of {max(given)}"
        label_line(ax, 1, row, text, INK, xycoords=("axes fraction", "data"))
    longest = max((given for _, given in ranks.values()), default=1)
    ax.set_yticks(range(len(kinds)), [short_name(kind, 22) for kind in kinds])
    _rows(ax, len(kinds))
    ax.set(xlim=(0, longest), xlabel="rank: enough (green), in the file (grey)")
    ax.locator_params("x", integer=True)
    return ax


def module_kinds(paths: Iterable[str]) -> dict[str, str]:
    """The name that each module shares with those in other layers: its last name, or more if ambiguous.

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
    ['model q_proj', 'v_proj', 'visual q_proj']
    """
    segments = {path: [part for part in path.split(".") if not part.isdigit()] or [path] for path in paths}
    alike: dict[str, set[tuple[str, ...]]] = {}
    for parts in segments.values():
        alike.setdefault(parts[-1], set()).add(tuple(parts))
    labels: dict[tuple[str, ...], str] = {}
    for last, several in alike.items():
        common = set[str].intersection(*map(set, several))
        short = {
            parts: " ".join([*[part for part in parts if part not in common][:1], last]) for parts in several
        }
        unique = len({*short.values()}) == len(short)
        labels |= short if unique else {parts: ".".join(parts) for parts in several}
    return {path: labels[tuple(parts)] for path, parts in segments.items()}


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
        Whole segments, where there are any.

    See Also
    --------
    module_kinds : Names without their layers.

    Examples
    --------
    >>> short_name("base_model.model.layers.0.self_attn.q_proj", 20)
    '…0.self_attn.q_proj'
    """
    if len(name) <= longest:
        return name
    end = name[len(name) - longest + 1 :]
    _, separator, whole = end.partition(".")
    return "…" + (whole if separator and len(whole) > longest // 2 else end)


def _bars(ax: Axes, heights: Mapping[str, float]) -> None:
    """A bar for each module, with its name and value; the strongest, where there are many."""
    names = list(heights) if len(heights) <= 16 else sorted(heights, key=lambda name: -heights[name])[:16]
    bars = ax.barh(range(len(names)), [heights[name] for name in names], height=0.5, color=LORA)
    ax.bar_label(bars, fmt="{:.3g}", padding=4, fontsize=9, color=LORA)
    ax.set_yticks(range(len(names)), [short_name(name, 26) for name in names])
    _rows(ax, len(names))
    ax.set_xlim(0, 1.18 * (max(heights.values(), default=0) or 1.0))
    if len(names) < len(heights):
        ax.set_ylabel(f"the strongest {len(names)} of {len(heights)} modules")


def _rows(ax: Axes, count: int) -> None:
    """Limits for rows of bars, from the top, that are no thicker where they are few."""
    spare = max(0.0, (5 - count) / 2)
    ax.set_ylim(count - 0.4 + spare, -0.6 - spare)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)


def _kinds(paths: Iterable[str]) -> dict[str, tuple[str, object, list[str]]]:
    """Colour, dashes and paths of each kind; rare kinds beyond the first share the last line."""
    groups: dict[str, list[str]] = {}
    for path, kind in module_kinds(paths).items():
        groups.setdefault(kind, []).append(path)
    if len(groups) > _KINDS:
        most = sorted(groups, key=lambda kind: -len(groups[kind]))[: _KINDS - 1]
        rest = [path for kind, members in groups.items() if kind not in most for path in members]
        other = f"{len(groups) - len(most)} other kinds"
        groups = {kind: members for kind, members in groups.items() if kind in most} | {other: rest}
    return {
        kind: (CYCLE[i % len(CYCLE)], _DASHES[i // len(CYCLE)], members)
        for i, (kind, members) in enumerate(groups.items())
    }
