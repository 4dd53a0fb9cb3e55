"""What LoRA costs: parameters against rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
    """Parameters of a LoRA against its rank, next to the full update's, with the break-even rank.

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

    Returns
    -------
    Axes
        The axes with the drawing.

    See Also
    --------
    error_with_spread : What each rank reaches.

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
    crossing = float(np.interp(full, parameters, ranks))
    ax.axvline(crossing, color=MUTED, linewidth=1, linestyle=":")
    last = ranks[-1]
    label_line(ax, last, full, f"full: {full:,}", FULL)
    label_line(ax, last, parameters[-1], "LoRA", LORA)
    label_line(ax, crossing, 0, f"break-even r = {break_even:,}", MUTED, va="bottom", xytext=(4, 4))
    for rank in chosen:
        count = int(parameters[np.flatnonzero(ranks == rank)[0]])
        ax.plot(rank, count, "o", color=ACCENT, markersize=6)
        label_line(ax, rank, count, f"r = {rank}: {count:,}", ACCENT, xytext=(8, -6))
    ax.set_ylim(bottom=0)
    ax.set(xlim=(0, last), xlabel="rank r", ylabel="trainable parameters")
    ax.yaxis.set_major_formatter("{x:,.0f}")
    return ax


def memory_by_cause(
    parts: Mapping[str, Mapping[str, int | None]], *, room: int | None = None, ax: Axes | None = None
) -> Axes:
    """Bytes by cause, stacked: a bar for each way to train, and a line where the memory ends.

    Parameters
    ----------
    parts : mapping of str to mapping of str to int
        For each way its bytes by cause; None counts as nothing.
    room : int, optional
        Bytes of the card.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        The axes with the drawing.

    See Also
    --------
    parameters_against_rank : Numbers instead of bytes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ways = {"full": {"weights": 2 * 10**9, "gradients": 2 * 10**9}, "LoRA": {"weights": 2 * 10**9}}
    >>> ax = memory_by_cause(ways, room=24 * 10**9, ax=Figure().add_subplot())
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['full', 'LoRA']
    """
    ax = axes(ax, grid="x")
    causes = list(dict.fromkeys(cause for way in parts.values() for cause in way))
    places = np.arange(len(parts))
    ends = np.zeros(len(parts))
    for cause, color in zip(causes, (MUTED, *CYCLE), strict=False):
        sizes = np.array([way.get(cause) or 0 for way in parts.values()]) / 1e9
        ax.barh(places, sizes, 0.7, ends, color=color, label=cause)
        ends += sizes
    # full fine-tuning may need so much that the rest could not be told apart
    limit = 1.14 * max(ends) if room is None else min(1.14 * max(ends, default=1), 2 * room / 1e9)
    for place, end in zip(places, ends, strict=True):
        inside = end > 0.95 * limit
        text = f"{end:,.1f} \N{RIGHTWARDS ARROW}" if inside else f"{end:,.1f}"
        side: dict[str, Any] = {"xytext": (-4, 0), "ha": "right"} if inside else {}
        label_line(ax, min(end, limit), float(place), text, INK, **side)
    if room is not None:
        ax.axvline(room / 1e9, color=INK, linewidth=1.4, linestyle="--", zorder=0.9)
        label_line(ax, room / 1e9, -0.5, f"{room / 1e9:,.1f} GB", INK, xytext=(4, 2), va="bottom")
    ax.set_yticks(places, list(parts))
    ax.invert_yaxis()
    ax.set(xlim=(0, limit), xlabel="memory to train [GB]")
    ax.figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return ax
