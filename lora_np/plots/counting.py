"""Figures of what LoRA costs: parameters against rank, a budget by kind of module, memory by cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_np.checks import Array
from lora_np.plots.style import ACCENT, CYCLE, FULL, INK, LORA, MUTED, axes, label_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def parameters_against_rank(
    ranks: Array,
    parameters: Array,
    *,
    full: int,
    break_even: int,
    chosen: Sequence[int] = (),
    ax: Axes | None = None,
) -> Axes:
    """Parameters of a LoRA against its rank, beside the full update's, with the break-even rank.

    Parameters
    ----------
    ranks, parameters : ndarray of shape (n,)
        Ranks in rising order, and what each costs.
    full : int
        Parameters of the full update.
    break_even : int
        The largest rank that costs less.
    chosen : sequence of int
        Ranks to mark with their counts; each must be in ``ranks``.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ranks = np.arange(1, 81)
    >>> ax = parameters_against_rank(
    ...     ranks, 220 * ranks, full=12_000, break_even=54, chosen=[8, 20], ax=Figure().add_subplot()
    ... )
    >>> ax.get_xlabel()
    'rank r'
    """
    ax = axes(ax)
    ranks, parameters = np.asarray(ranks), np.asarray(parameters)
    saves = parameters < full
    ax.fill_between(ranks, parameters, full, where=saves.tolist(), color=LORA, alpha=0.08, linewidth=0)
    ax.axhline(full, color=FULL, linewidth=1.8)
    ax.plot(ranks, parameters, color=LORA, linewidth=1.8)
    ax.axvline(break_even, color=MUTED, linewidth=1, linestyle=":")
    last = ranks[-1]
    label_line(ax, last, full, f"full: {full:,}", FULL)
    label_line(ax, last, parameters[-1], "LoRA", LORA)
    label_line(ax, break_even, 0, f"break-even r = {break_even:,}", MUTED, va="bottom", xytext=(4, 4))
    for rank in chosen:
        count = int(parameters[np.flatnonzero(ranks == rank)[0]])
        ax.plot(rank, count, "o", color=ACCENT, markersize=6)
        label_line(ax, rank, count, f"r = {rank}: {count:,}", ACCENT, xytext=(8, -6))
    ax.set_ylim(bottom=0)
    ax.set_xlim(0, last)
    ax.set_xlabel("rank r")
    ax.set_ylabel("trainable parameters")
    ax.yaxis.set_major_formatter("{x:,.0f}")
    return ax


def budget_by_kind(names: Sequence[str], parameters: Sequence[int], *, ax: Axes | None = None) -> Axes:
    """How a LoRA's parameters split over kinds of modules: a bar for each, the largest on top.

    Parameters
    ----------
    names : sequence of str
        Kinds of modules.
    parameters : sequence of int
        What each costs; kinds without any are left out.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = budget_by_kind(["q_proj", "v_proj"], [1_280, 640], ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['v_proj', 'q_proj']
    """
    pairs = [(count, name) for name, count in zip(names, parameters, strict=True) if count]
    shown = sorted(pairs, key=lambda pair: pair[0], reverse=True)[::-1]  # equal ones keep their order
    ax = axes(ax, size=(6.0, 0.9 + 0.38 * len(shown)))
    counts = [count for count, _ in shown]
    places = range(len(shown))
    ax.barh(places, counts, color=LORA, height=0.62)
    for place, count in zip(places, counts, strict=True):
        label_line(ax, count, place, f"{count:,}  ({count / sum(counts):.0%})", INK)
    ax.set_yticks(places, [name for _, name in shown])
    ax.grid(False)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(left=False, bottom=False, labelbottom=False)
    ax.set_xlim(0, 1.35 * max(counts, default=1))
    ax.set_title("trainable parameters by kind of module", loc="left", fontsize=10, color=INK)
    return ax


def memory_by_cause(
    causes: Sequence[str], methods: Mapping[str, Sequence[int]], *, ax: Axes | None = None
) -> Axes:
    """What training needs in memory: a stacked bar for each method, a colour for each cause.

    Parameters
    ----------
    causes : sequence of str
        What the bytes are for, in the order of stacking.
    methods : mapping of str to sequence of int
        From a method to its bytes, one for each cause.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> methods = {"full": [14e9, 14e9, 6e9], "LoRA": [14e9, 2e8, 7e9]}
    >>> ax = memory_by_cause(["weights", "gradients", "activations"], methods, ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['LoRA', 'full']
    """
    ax = axes(ax, size=(6.8, 1.5 + 0.6 * len(methods)))
    sizes = (
        np.array([list(values) for values in methods.values()], dtype=np.float64) / 1e9
    )  # (methods, causes)
    places = np.arange(len(methods))[::-1]
    left = np.zeros(len(methods))
    for column, cause in enumerate(causes):
        ax.barh(
            places, sizes[:, column], left=left, height=0.6, color=_CAUSES[column % len(_CAUSES)],
            edgecolor="white", linewidth=0.4, label=cause,
        )  # fmt: skip
        left += sizes[:, column]
    for place, total in zip(places, left, strict=True):
        label_line(ax, total, place, f"{total:,.1f} GB", INK)
    order = np.argsort(places)
    names = list(methods)
    ax.set_yticks(places[order], [names[index] for index in order])
    ax.tick_params(left=False)
    ax.grid(True, axis="x", color="#e6e6e6", linewidth=0.8)
    ax.grid(False, axis="y")
    ax.set_xlim(0, 1.16 * left.max())
    ax.set_xlabel("memory to train [GB = 10⁹ bytes]")
    ax.legend(
        loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=len(causes), frameon=False, fontsize=9,
        handlelength=1.0, columnspacing=1.4,
    )  # fmt: skip
    return ax


# weights grey, what full fine-tuning pays for in its colour's family, activations apart
_CAUSES = (MUTED, CYCLE[0], CYCLE[1], CYCLE[3], CYCLE[5], CYCLE[2])
