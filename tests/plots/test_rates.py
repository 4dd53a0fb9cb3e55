"""Figures of settings: every number in its tile, every line through its medians."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from lora_np.plots import errors_against_rate, loss_map


def panel():
    return Figure().add_subplot()


def test_the_map_has_a_number_in_each_tile_and_says_what_diverged():
    losses = np.array([[0.5, 0.25, 0.1], [0.3, np.nan, np.inf]])
    ax = loss_map(losses, alphas=[1, 16], rates=[1e-3, 1e-2, 1e-1], ax=panel())
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert [texts[column, 0] for column in range(3)] == ["0.500", "0.250", "0.100"]
    assert [texts[column, 1] for column in range(3)] == ["0.300", "diverged", "diverged"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "16"]


@pytest.mark.parametrize(("start", "darkest"), [(None, 0.5), (0.4, 0.4)])
def test_what_is_worse_than_the_start_is_as_dark_as_the_start(start, darkest):
    ax = loss_map(np.array([[0.5, np.inf, 0.1]]), alphas=[1], rates=[1, 2, 3], start=start, ax=panel())
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), [[darkest, darkest, 0.1]])
    assert image.get_clim() == (0.1, darkest)


def test_lines_go_through_medians_in_the_order_of_the_rates():
    curves = {"a": {0.1: [3.0, 1.0, 8.0], 0.01: [5.0]}, "b": {0.1: [2.0]}}
    ax = errors_against_rate(curves, start=9.0, ax=panel())
    before, a, b = ax.lines
    assert set(before.get_ydata()) == {9.0}
    np.testing.assert_allclose(a.get_xydata(), [[0.01, 5], [0.1, 3]])
    np.testing.assert_allclose(b.get_xydata(), [[0.1, 2]])
    assert a.get_marker() != b.get_marker()
