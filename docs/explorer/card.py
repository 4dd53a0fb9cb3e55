"""What a shared link shows, drawn from the data of the front page: python docs/explorer/card.py
card.png
"""

import sys
from pathlib import Path

import front_data
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from lora_np import linalg, plots
from lora_np.accounting import count_full, count_lora
from lora_np.checks import Array

WIDTH, HEIGHT = 1_200, 630  # pixels, which is what most sites ask for
RANK = 20
CELL = 2.5  # pixels of an entry
LEFT, TOP = 60, 240  # pixels, of the first matrix
PAPER, QUIET = "#0d1b2a", "#b8c4d0"
CHANGE = LinearSegmentedColormap.from_list(
    "change", [plots.SKY, plots.LORA, "#14283d", plots.FULL, "#ffc48a"]
)
FROZEN = f"{count_full(front_data.D, front_data.K):,} numbers"
TRAINED = f"{count_lora(front_data.D, front_data.K, rank=RANK):,} numbers"
ALT = (
    f"LoRA, while it learns. A map of mountains, {FROZEN}, plus the product of two thin matrices,"
    f" {TRAINED}, is a portrait: an update of rank {RANK}."
)
TAGS = (
    f'<meta property="og:image:width" content="{WIDTH}">',
    f'<meta property="og:image:height" content="{HEIGHT}">',
    '<meta name="twitter:card" content="summary_large_image">',
)


def draw() -> Figure:
    """W0 + B A = W at one rank, with what each side counts."""
    W0, change = front_data.start(), front_data.goal() - front_data.start()
    B, A = linalg.low_rank_factors(change, rank=RANK)
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor=PAPER)
    say(figure, LEFT, 92, "LoRA, while it learns", size=46, color="white", weight="bold")
    say(
        figure,
        WIDTH - LEFT,
        92,
        "lora_np",
        size=22,
        color=plots.SKY,
        ha="right",
        family="monospace",
    )
    say(
        figure,
        LEFT,
        150,
        "Low-rank adaptation in plain NumPy: see it, train it, count it",
        size=20,
        color=QUIET,
    )
    at = LEFT
    matrix(figure, W0, at, TOP, grey=True)
    caption(figure, at, "W0, frozen", FROZEN, "white")
    at += front_data.K * CELL
    sign(figure, at, "+")
    at += 60
    strip = RANK * CELL + 6
    matrix(figure, B, at, TOP)
    matrix(figure, A, at + strip, TOP - strip)
    matrix(figure, B @ A, at + strip, TOP)
    caption(figure, at, f"B A, rank {RANK}", TRAINED, plots.SKY)
    at += strip + front_data.K * CELL
    sign(figure, at, "=")
    at += 60
    matrix(figure, W0 + B @ A, at, TOP, grey=True)
    caption(figure, at, "W0 + B A", "one matrix", "white")
    return figure


def matrix(figure: Figure, M: Array, left: float, top: float, *, grey: bool = False) -> None:
    rows, columns = M.shape
    width, height = columns * CELL, rows * CELL
    ax = figure.add_axes(
        (left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT)
    )
    reach = np.quantile(np.abs(M), 0.99)
    limits = (0, 1) if grey else (-reach, reach)
    ax.imshow(M, "gray" if grey else CHANGE, aspect="auto", interpolation="nearest", clim=limits)
    ax.set_axis_off()


def sign(figure: Figure, left: float, text: str) -> None:
    say(figure, left + 30, TOP + 50 * CELL, text, size=34, color=QUIET, ha="center", va="center")


def caption(figure: Figure, left: float, name: str, numbers: str, color: str) -> None:
    below = TOP + front_data.D * CELL
    say(figure, left, below + 42, name, size=19, color=QUIET)
    say(figure, left, below + 80, numbers, size=24, color=color, weight="bold")


def say(figure: Figure, left: float, top: float, text: str, **style: object) -> None:
    figure.text(left / WIDTH, 1 - top / HEIGHT, text, **style)


if __name__ == "__main__":
    draw().savefig(Path(sys.argv[1]))
