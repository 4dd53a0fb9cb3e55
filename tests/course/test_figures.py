"""Figures of lessons show the numbers that they are given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from lora_np.course import loss_map, memory_by_cause, similarity_heatmap


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


def test_similarity_heatmap_puts_phi_of_i_and_j_where_the_axes_say():
    grid = np.arange(6.0).reshape(2, 3) / 6
    ax = similarity_heatmap(grid, names=("r = 2", "r = 3"), ax=panel())
    image = ax.images[0]
    np.testing.assert_array_equal(image.get_array(), grid)
    assert image.get_extent() == [0.5, 3.5, 0.5, 2.5]
    assert image.origin == "lower"
    assert image.get_clim() == (0, 1)
    assert ax.get_ylabel() == "top i directions of r = 2"


def test_memory_stacks_to_the_total():
    ax = panel()
    methods = {"full": [10e9, 20e9, 5e9], "LoRA": [10e9, 1e9, 6e9], "QLoRA": [3e9, 1e9, 6e9]}
    memory_by_cause(["weights", "optimizer", "activations"], methods, ax=ax)
    ends = {}
    for bar in ax.patches:
        middle = round(bar.get_y() + bar.get_height() / 2, 6)
        ends[middle] = max(ends.get(middle, 0), bar.get_x() + bar.get_width())
    assert ends == pytest.approx({2.0: 35, 1.0: 17, 0.0: 10})
    assert [text.get_text() for text in ax.texts] == ["35.0 GB", "17.0 GB", "10.0 GB"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["QLoRA", "LoRA", "full"]
