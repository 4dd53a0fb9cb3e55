"""Photographs inside of figures: in the dark the drawing around them is inverted, they are not."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from docutils import nodes
from numpy.typing import NDArray
from PIL import Image

PAPER = 235  # grey levels from here on are paper, but for what JPEG makes of edges
BRIGHT = 200  # a mean grey level above is that of a drawing on paper, not of a photograph
SIDE = 40  # pixels of the shortest side of a photograph: text is smaller
Box = tuple[int, int, int, int]


def boxes(path: Path) -> list[Box]:
    """Find the grey pictures of a figure: top, bottom, left and right, in pixels."""
    with Image.open(path) as figure:
        colours = np.asarray(figure.convert("RGB"), dtype=float)
    grey, spread = colours.mean(axis=2), np.ptp(colours, axis=2)
    ink, (height, width) = grey < PAPER, grey.shape
    found = []
    for top, bottom, left, right in pieces(ink, (0, height, 0, width)):
        part = slice(top, bottom), slice(left, right)
        large = min(bottom - top, right - left) >= SIDE
        if large and grey[part].mean() < BRIGHT and spread[part].mean() < 8:
            found.append((top, bottom, left, right))
    return found


def pieces(ink: NDArray[np.bool_], box: Box) -> Iterator[Box]:
    """Cut a box along its empty rows and columns, again and again, until none is left."""
    top, bottom, left, right = box
    inside = ink[top:bottom, left:right]
    rows = runs(inside.mean(axis=1) > 0.003)
    columns = runs(inside.mean(axis=0) > 0.003)
    if rows == [(0, bottom - top)] and columns == [(0, right - left)]:
        yield box
        return
    for first, last in rows:
        for start, end in columns:
            yield from pieces(ink, (top + first, top + last, left + start, left + end))


def runs(filled: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where an array is True, from and to."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], filled.astype(int), [0]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def framed(image: nodes.image, path: Path) -> nodes.container:
    """The figure, and on it a copy cut to its photographs, which site.css shows in the dark."""
    with Image.open(path) as figure:
        width, height = figure.size
    corners = ["0 0"]
    for top, bottom, left, right in boxes(path):
        around = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        corners += [f"{100 * x / width:.2f}% {100 * y / height:.2f}%" for x, y in around] + ["0 0"]
    shape = f"clip-path:polygon(evenodd,{','.join(corners)})"
    opening, closing = f'<div class="kept" aria-hidden="true" style="{shape}">', "</div>"
    copy = image.deepcopy()
    for size in ("width", "height"):  # with them it would be a link as well
        copy.attributes.pop(size, None)
    framing = [nodes.raw("", text, format="html") for text in (opening, closing)]
    return nodes.container("", image, framing[0], copy, framing[1], classes=["pictures"])
