"""Photographs inside of figures are found where Matplotlib has drawn them, and drawings are not."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import lora_np as lnp

pytest.importorskip("docutils")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def boxes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    return importlib.import_module("pictures").boxes


def drawn(figure, path):
    """The places of the axes in pixels, from the top left: top, bottom, left, right."""
    figure.set_dpi(150)
    FigureCanvasAgg(figure).print_figure(str(path), dpi=150)
    height = figure.bbox.height
    extents = [axes.get_window_extent() for axes in figure.axes]
    return [(height - box.y1, height - box.y0, box.x0, box.x1) for box in extents]


def test_photographs_are_found_to_the_pixel(boxes, tmp_path):
    rows, columns = np.indices((90, 60))
    noise = np.random.default_rng(0).normal(size=(90, 60))
    flag = columns // 20 / 2  # its last band is white, like the paper
    figure = lnp.plots.gallery(
        {"flag": flag, "noise": noise, "chessboard": (rows // 10 + columns // 10) % 2},
        figure=Figure(),
        width=7,
    )
    expected = drawn(figure, tmp_path / "figure.jpeg")
    found = boxes(tmp_path / "figure.jpeg")
    assert len(found) == 3
    assert np.abs(np.array(found) - expected).max() < 4


def test_a_drawing_has_none(boxes, tmp_path):
    figure = Figure()
    lnp.plots.lines({"a": np.arange(9.0)}, xlabel="step", ylabel="loss", ax=figure.add_subplot())
    drawn(figure, tmp_path / "figure.jpeg")
    assert boxes(tmp_path / "figure.jpeg") == []


def test_colours_are_a_drawing(boxes, tmp_path):
    figure = Figure()
    figure.add_subplot().imshow(np.random.default_rng(0).normal(size=(40, 40)), cmap="RdBu_r")
    drawn(figure, tmp_path / "figure.jpeg")
    assert boxes(tmp_path / "figure.jpeg") == []


@pytest.mark.parametrize(
    ("cover", "photographs"),
    [("01-see-rank", 3), ("02-cut-the-svd", 2), ("07-factor-a-matrix", 4), ("17-adapt-a-real-model", 4)],
)  # fmt: skip
def test_covers(boxes, cover, photographs):
    assert len(boxes(ROOT / "notebooks" / "covers" / f"{cover}.jpeg")) == photographs
