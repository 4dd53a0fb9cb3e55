"""What a shared link and the README show, drawn from the front page's data and the task of
``lora-np tour``: python docs/explorer/card.py card.png
"""

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

import front_data
import numpy as np
import palette
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lora_np import accounting
from lora_np.accounting import count_full, count_lora
from lora_np.checks import Array
from lora_np.course import guided_tour
from lora_np.plots import LORA

WIDTH, HEIGHT = 1_200, 630  # pixels, which is what most sites ask for
Color = tuple[int, int, int]
RANK = front_data.RANK
CELL = 2.3  # pixels of an entry
LEFT, TOP = 60, 268  # pixels, of the first matrix
PAPER, PANEL, INK, QUIET, COOL, LEARN, GOOD, NOT = (
    palette.TOKENS["dark"][name]
    for name in ("paper", "base-wash", "ink", "ink-2", "base-text", "lora-text", "good", "not")
)
FULL = count_full(front_data.D, front_data.K)
TRAINED = count_lora(front_data.D, front_data.K, rank=RANK)
TAGS = (
    f'<meta property="og:image:width" content="{WIDTH}">',
    f'<meta property="og:image:height" content="{HEIGHT}">',
    '<meta name="twitter:card" content="summary_large_image">',
)


@cache
def gained() -> float:
    """What share of the full update's improvement the rank achieves, in ``lora-np tour``."""
    best = guided_tour.Task(0, quick=False).best_errors
    return float((best[0] - best[RANK]) / (best[0] - best[-1]))


def alt() -> str:
    """The card in words."""
    return (
        f"LoRA in plain NumPy: freeze the big matrix, {FULL:,} parameters; train two thin ones,"
        f" {TRAINED:,} at rank {RANK}. In lora-np tour they achieve {gained():.1%} of the"
        f" improvement of {FULL:,}."
    ).replace("%", " %")


def draw() -> Figure:
    """W0 beside B and A to scale, two bars, and threes before and after."""
    found = front_data.task()
    B, A = front_data.best(RANK)
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor=PAPER)
    say(figure, LEFT, 92, "Freeze the big matrix.", size=40, color=COOL, weight="bold")
    say(figure, LEFT, 150, "Train two thin ones.", size=40, color=LEARN, weight="bold")
    say(figure, WIDTH - LEFT, 92, "lora_np", size=22, color=INK, ha="right", family="monospace")
    say(figure, WIDTH - LEFT, 128, "LoRA in plain NumPy", size=17, color=QUIET, ha="right")
    matrix(figure, found.W0, LEFT, TOP, 0.2, front_data.FROZEN, front_data.FROZEN)
    below = TOP + front_data.D * CELL
    say(figure, LEFT, below + 34, "W0, frozen", size=15, color=QUIET)
    say(figure, LEFT, below + 66, f"{FULL:,} parameters", size=19, color=INK, weight="bold")
    at, strip = LEFT + front_data.K * CELL + 60, RANK * CELL
    say(figure, at - 30, TOP + 50 * CELL, "+", size=26, color=QUIET, ha="center", va="center")
    U, s, Vt = np.linalg.svd(B @ A)
    root = np.sqrt(s[:RANK])
    signs = front_data.PLUS, front_data.MINUS
    matrix(figure, U[:, :RANK] * root, at, TOP, 0.4, *signs)
    matrix(figure, root[:, None] * Vt[:RANK], at + strip + 6, TOP - strip - 6, 0.4, *signs)
    matrix(figure, B @ A, at + strip + 6, TOP, 0.11, *signs)
    say(figure, at, below + 34, f"B and A, trained, rank {RANK}", size=15, color=QUIET)
    say(figure, at, below + 66, f"{TRAINED:,} parameters", size=19, color=LEARN, weight="bold")
    left = at + strip + front_data.K * CELL + 56
    width = WIDTH - LEFT - left
    bar(figure, left, TOP - 4, width, TRAINED / FULL, "parameters trained")
    bar(figure, left, TOP + 72, width, gained(), "gain of full training (tour)")
    x = found.x[-front_data.HELD_OUT :][list(front_data.SHOWN[:4])]
    for top, W, color in ((122, found.W0, front_data.FROZEN), (194, found.W0 + B @ A, signs[0])):
        digits(figure, (x @ W.T).reshape(-1, 10, 10), left, TOP + top, width, color)
    say(
        figure,
        left,
        below + 66,
        "threes, without and with B A",
        size=15,
        color=QUIET,
    )
    return figure


def fit() -> Figure:
    """What three methods need of a GPU's memory."""
    model, gpu = "llama-3.1-8b", accounting.gpus()["RTX 4090"]
    needs = front_data.fit()["memory"][model]
    figure = headed("Does it fit my GPU?", f"Llama 3.1 8B on an {gpu.name}, {gpu.sold} GB")
    width, scale = WIDTH - 2 * LEFT, 1.1 * max(needs.values())
    for i, (method, need) in enumerate(needs.items()):
        top, holds = 250 + 108 * i, need <= gpu.room
        said = f"{need / 2**30:.1f} GB: {'fits' if holds else 'does not fit'}"
        say(figure, LEFT, top, method, size=20, color=INK)
        say(
            figure, WIDTH - LEFT, top, said,
            size=20, ha="right", color=GOOD if holds else NOT, weight="bold",
        )  # fmt: skip
        ax = placed(figure, LEFT, top + 18, width, 34, PANEL)
        ax.axvspan(0, need / scale, color=GOOD if holds else NOT, linewidth=0)
        ax.axvline(gpu.room / scale, color=INK, linewidth=3)
        ax.set_xlim(0, 1)
    say(
        figure,
        LEFT,
        582,
        "Any model, any GPU, in the browser. The line: what training may take.",
        size=16,
        color=QUIET,
    )
    return figure


def claim(known: Mapping[str, Any]) -> Figure:
    """A claim, its verdict, and its figures with their intervals."""
    figure = headed("Does it hold?", "A claim about LoRA, tested with one protocol")
    lines = wrap(known["title"], 56)[:3]
    for i, line in enumerate(lines):
        say(figure, LEFT, 236 + 50 * i, line, size=25, color=INK)
    top = 246 + 50 * len(lines)
    say(figure, LEFT, top + 36, known["verdicts"], size=30, color=INK, weight="bold")
    for i, (name, found) in enumerate([*known["figures"].items()][:2]):
        low, high = found["low"], found["high"]
        text = f"{found['mean']:.3g} ({low:.3g} to {high:.3g}): {known['meaning'][name]}"
        say(
            figure,
            LEFT,
            top + 86 + 36 * i,
            shorten(text, 84, placeholder="…"),
            size=16,
            color=QUIET,
        )
    say(figure, LEFT, 582, shorten(known["paper"], 90, placeholder="…"), size=16, color=QUIET)
    return figure


def puzzles() -> Figure:
    """A matrix, and the two thin ones that make it."""
    B, A = front_data.best(3)
    figure = headed("LoRA puzzles", "Fifteen missing lines of LoRA, in the browser")
    top = 290
    places = ((LEFT + 10, top, 8, 1), (LEFT + 130, top + 82, 1, 8), (LEFT + 640, top, 1, 1))
    for M, (left, down, wide, high) in zip((B, A, B @ A), places, strict=True):
        rows, columns = M.shape
        ax = placed(figure, left, down, 2.2 * columns * wide, 2.2 * rows * high, PANEL)
        reach = np.quantile(np.abs(M), 0.98)
        colors = np.where((M < 0)[..., None], front_data.MINUS, front_data.PLUS) / 255
        alpha = np.minimum(1, np.abs(M) / reach) ** 0.6
        ax.imshow(np.dstack([colors, alpha]), aspect="auto", interpolation="nearest")
    say(figure, LEFT + 92, top + 118, "@", size=26, color=QUIET, ha="center", va="center")
    say(figure, LEFT + 545, top + 118, "= ?", size=34, color=LEARN, ha="center", va="center")
    say(figure, LEFT, 582, "From an outer product to a LoRA that trains.", size=16, color=QUIET)
    return figure


def headed(title: str, below: str) -> Figure:
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor=PAPER)
    say(figure, LEFT, 104, title, size=42, color=LEARN, weight="bold")
    say(figure, LEFT, 156, below, size=20, color=COOL)
    say(figure, WIDTH - LEFT, 92, "lora_np", size=22, color=INK, ha="right", family="monospace")
    return figure


def write(folder: Path, claims: Mapping[str, Mapping[str, Any]]) -> None:
    """All cards, each as card-NAME.png, and the front page's as card.png."""
    draw().savefig(folder / "card.png")
    fit().savefig(folder / "card-fit.png")
    puzzles().savefig(folder / "card-puzzles.png")
    for name, known in claims.items():
        claim(known).savefig(folder / f"card-{name}.png")


def placed(
    figure: Figure, left: float, top: float, width: float, height: float, color: str
) -> Axes:
    box = (left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT)
    ax = figure.add_axes(box, facecolor=color)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    return ax


def matrix(
    figure: Figure, M: Array, left: float, top: float, reach: float, plus: Color, minus: Color
) -> None:
    rows, columns = M.shape
    ax = placed(figure, left, top, columns * CELL, rows * CELL, PANEL)
    colors = np.where((M < 0)[..., None], minus, plus) / 255
    alpha = np.minimum(1, np.abs(M) / reach) ** 0.6
    ax.imshow(np.dstack([colors, alpha]), aspect="auto", interpolation="nearest")


def bar(figure: Figure, left: float, top: float, width: float, share: float, what: str) -> None:
    say(figure, left, top, what, size=14, color=QUIET)
    say(
        figure,
        left + width,
        top,
        f"{100 * share:.1f} %",
        size=17,
        color=LEARN,
        ha="right",
        weight="bold",
    )
    ax = placed(figure, left, top + 12, width, 16, PANEL)
    ax.axvspan(0, share, color=LORA, linewidth=0)
    ax.set_xlim(0, 1)


def digits(
    figure: Figure, images: Array, left: float, top: float, width: float, color: Color
) -> None:
    size = width / len(images)
    ink = front_data.resized(images, 40, 40).reshape(-1, 40, 40)
    s = np.minimum(np.maximum((ink - 0.34) / 0.2, 0), 1)
    for i, alpha in enumerate(s * s * (3 - 2 * s)):
        ax = placed(figure, left + i * size, top, 66, 66, PAPER)
        ax.imshow(np.dstack([np.broadcast_to(np.array(color) / 255, (40, 40, 3)), alpha]))


def say(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    figure.text(left / WIDTH, 1 - top / HEIGHT, text, **style)


if __name__ == "__main__":
    draw().savefig(Path(sys.argv[1]))
