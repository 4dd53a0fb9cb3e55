"""Sliders: what they show is what the package computes; without ipywidgets, a figure."""

import base64
import io
import re
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

import lora_np as lnp
from lora_np.course.widgets import picture_slider, rank_slider, training_sliders

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


def test_a_matrix_of_one_grey():
    pytest.importorskip("ipywidgets", reason="comes with the extra `notebooks`")
    picture, _ = shown(rank_slider(np.ones((3, 3)), rank=1).children[1])
    assert not picture.any()


PICTURES = {f"rank {rank}": rank * np.arange(12.0).reshape(3, 4) / 5 for rank in (5, 1, 3)}


def test_pictures_follow_their_slider_on_the_grey_scale_of_the_first():
    pytest.importorskip("ipywidgets", reason="comes with the extra `notebooks`")
    handle, view = picture_slider(PICTURES, description="rank").children
    low, high = np.quantile(PICTURES["rank 5"], [0.005, 0.995])
    for place in (0, 2, 1):
        handle.value = place
        picture, text = shown(view)
        assert text == list(PICTURES)[place]
        np.testing.assert_allclose(
            picture, np.clip((PICTURES[text] - low) / (high - low), 0, 1), atol=1 / 255
        )


def test_pictures_as_a_figure(without_ipywidgets):
    figure = picture_slider({f"rank {rank}": np.eye(4) for rank in range(9)})
    assert isinstance(figure, Figure)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["rank 0", "rank 3", "rank 5", "rank 8"]


def test_pictures_must_be_there_and_finite(without_ipywidgets):
    with pytest.raises(ValueError, match="at least one picture"):
        picture_slider({})
    with pytest.raises(ValueError, match="picture 'rank 1'"):
        picture_slider({"rank 1": np.full((2, 2), np.nan)})


def run(alpha, rate):
    if alpha * rate > 5:
        raise FloatingPointError("the loss is not finite in step 3")
    return np.geomspace(2.0, 2.0 / (1 + alpha * rate), 11)


def test_training_follows_both_sliders():
    pytest.importorskip("ipywidgets", reason="comes with the extra `notebooks`")
    alpha, rate, view = training_sliders(run, alphas=[1, 2, 10], rates=[0.1, 1.0]).children
    assert (alpha.value, rate.value) == (2, 1.0)
    assert shown(view)[1] == "alpha 2, learning rate 1: loss 2 at the start, 0.6667 after 10 steps"
    before, _ = shown(view)
    rate.value = 0.1
    after, text = shown(view)
    assert text == "alpha 2, learning rate 0.1: loss 2 at the start, 1.667 after 10 steps"
    assert before.shape == after.shape
    assert not np.array_equal(before, after)
    alpha.value, rate.value = 10, 1.0
    assert shown(view)[1] == "alpha 10, learning rate 1: diverged"


def test_a_setting_is_trained_once():
    pytest.importorskip("ipywidgets", reason="comes with the extra `notebooks`")
    asked = []

    def train(alpha, rate):
        asked.append((alpha, rate))
        return run(alpha, rate)

    alpha, _, _ = training_sliders(train, alphas=[1, 2], rates=[0.1], optimum=0.5).children
    for value in (1, 2, 1):
        alpha.value = value
    assert asked == [(2, 0.1), (1, 0.1)]


def test_training_as_a_map_of_the_last_losses(without_ipywidgets):
    figure = training_sliders(run, alphas=[1, 10], rates=[0.1, 1.0])
    assert isinstance(figure, Figure)
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] == ["1.818", "1.000", "1.000", "diverged"]


def test_sliders_need_a_stop(without_ipywidgets):
    with pytest.raises(ValueError, match="alphas and rates must not be empty"):
        training_sliders(run, alphas=[], rates=[0.1])
