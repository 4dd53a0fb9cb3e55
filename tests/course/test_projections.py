"""Columns move onto the line of an approximation, and each move has its length."""

import numpy as np
from matplotlib.figure import Figure

from lora_np.course import columns_on_line

M = np.array([[3.0, 5.0], [4.0, 0.0]])
NEAREST = {"QR": np.array([[3.0, 1.8], [4.0, 2.4]]), "SVD": np.array([[4.0, 4.0], [2.0, 2.0]])}


def test_every_column_moves_to_its_approximation_and_the_length_is_written():
    figure = columns_on_line(M, NEAREST, figure=Figure())
    for ax, near in zip(figure.axes, NEAREST.values(), strict=True):
        dots = [line.get_xydata()[0].tolist() for line in ax.lines if line.get_marker() == "o"]
        assert dots == near.T.tolist()
        ways = [line.get_xydata() for line in ax.lines if line.get_linestyle() == "--"]
        np.testing.assert_array_equal(ways, np.stack([M.T, near.T], axis=1))
    lengths = [[text.get_text() for text in ax.texts if text.get_text()[:1].isdigit()] for ax in figure.axes]
    assert lengths == [["4"], ["2.24", "2.24"]]  # a column that stays has none


def test_everything_is_inside_the_axes():
    figure = columns_on_line(M, NEAREST, figure=Figure())
    for ax in figure.axes:
        assert ax.get_xlim()[0] < 0 < 5 < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < 0 < 4 < ax.get_ylim()[1]
        assert ax.get_aspect() == 1  # or right angles would not look it


def test_a_new_figure_is_made_if_none_is_given():
    import matplotlib.pyplot as plt

    columns_on_line(M, NEAREST)
    assert len(plt.get_fignums()) == 1
