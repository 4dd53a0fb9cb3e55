"""The slider: what it shows at each rank is what the package computes; without ipywidgets, a figure."""

import base64
import io
import re
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

import lora_np as lnp
from lora_np.widgets import rank_slider

M = np.random.default_rng(0).normal(size=(30, 40)) + 5 * np.outer(np.arange(30), np.ones(40))


@pytest.fixture
def without_ipywidgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)


@pytest.fixture
def slider():
    pytest.importorskip("ipywidgets", reason="comes with the extra `notebooks`")
    return rank_slider(M, rank=2, largest=10)


def shown(view):
    encoded = re.search(r"base64,([^\"]+)", view.value)[1]
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(encoded)))
    text = re.search("<figcaption[^>]*>(.*?)</figcaption>", view.value)[1]
    return picture, text


def test_picture_and_text_follow_the_slider(slider):
    handle, view = slider.children
    low, high = np.quantile(M, [0.005, 0.995])
    for rank in (2, 10, 1, 5):
        handle.value = rank
        picture, text = shown(view)
        B, A = lnp.low_rank_factors(M, rank=rank)
        np.testing.assert_allclose(picture, np.clip((B @ A - low) / (high - low), 0, 1), atol=1 / 255)
        error = np.linalg.norm(M - B @ A) / np.linalg.norm(M)
        assert text == f"rank {rank}: {rank * 70} numbers instead of 1,200, error {error:.1%}"
        assert f'alt="The matrix as a picture, {text}"' in view.value


def test_slider_ends_at_the_break_even_rank_by_default():
    pytest.importorskip("ipywidgets", reason="comes with the extra `notebooks`")
    handle, _ = rank_slider(M).children
    assert (handle.min, handle.max, handle.value) == (1, lnp.break_even_rank(30, 40), 8)


def test_static_figure_where_ipywidgets_is_absent(without_ipywidgets):
    figure = rank_slider(M, largest=10)
    assert isinstance(figure, Figure)
    errors = lnp.rank_errors(M, relative=True)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == [f"r = {rank}, error {errors[rank]:.1%}" for rank in (1, 2, 5, 10)]
    for ax, rank in zip(figure.axes, (1, 2, 5, 10), strict=True):
        B, A = lnp.low_rank_factors(M, rank=rank)
        np.testing.assert_allclose(ax.images[0].get_array(), B @ A, atol=1e-10)


def test_static_figure_is_not_left_open_in_pyplot(without_ipywidgets):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    rank_slider(M)
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank must be between 1 and largest = 17, got 0"),
        ({"rank": 11, "largest": 10}, "rank must be between 1 and largest = 10, got 11"),
        ({"largest": 31}, r"largest must be between 1 and min\(d, k\) = 30, got 31"),
    ],
)
def test_ranks_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        rank_slider(M, **settings)


def test_a_vector_has_no_rank_to_move(without_ipywidgets):
    with pytest.raises(ValueError, match="M must be a matrix"):
        rank_slider(np.ones(3))


@pytest.mark.parametrize("shape", [(1, 5), (3, 3)])
def test_the_smallest_matrices(without_ipywidgets, shape):
    assert rank_slider(np.ones(shape), rank=1).axes
