"""Sliders: what they show is what was asked for; without ipywidgets, a figure."""

import base64
import io
import re
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from lora_np.course import sliders

PICTURE = np.arange(12.0).reshape(3, 4) / 12


@pytest.fixture
def without_ipywidgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)


@pytest.fixture
def with_ipywidgets():
    pytest.importorskip("ipywidgets", reason="comes with the extra `notebooks`")


def shown(view):
    encoded = re.search(r"base64,([^\"]+)", view.value)[1]
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(encoded)))
    text = re.search("<figcaption[^>]*>(.*?)</figcaption>", view.value)[1]
    return picture, text


def scaled(rank):
    return rank * PICTURE, f"rank {rank}"


@pytest.mark.parametrize("limits", [(0, 1), (-2.0, 3.0)])
def test_picture_and_caption_follow_the_slider(with_ipywidgets, limits):
    handle, view = sliders(scaled, rank=[1, 2, 3], limits=limits).children
    assert (handle.description, handle.value) == ("rank", 2)
    low, high = limits
    for rank in (3, 1, 2):
        handle.value = rank
        picture, text = shown(view)
        np.testing.assert_allclose(
            picture, np.clip((rank * PICTURE - low) / (high - low), 0, 1), atol=1 / 255
        )
        assert text == f"rank {rank}"
        assert f'alt="rank {rank}"' in view.value


def curve(alpha, rate):
    figure = Figure()
    figure.add_subplot().plot([1.0, 1 / (1 + alpha * rate)])
    return figure, f"alpha {alpha}, rate {rate}"


def test_a_figure_follows_two_sliders_and_is_drawn_once(with_ipywidgets):
    asked = []

    def show(alpha, rate):
        asked.append((alpha, rate))
        return curve(alpha, rate)

    alpha, rate, view = sliders(show, alpha=[1, 2, 10], rate=[0.1, 1.0]).children
    before, text = shown(view)
    assert text == "alpha 2, rate 1.0"
    rate.value = 0.1
    after, text = shown(view)
    assert text == "alpha 2, rate 0.1"
    assert before.shape == after.shape
    assert not np.array_equal(before, after)
    rate.value = 1.0
    alpha.value = 10
    assert asked == [(2, 1.0), (2, 0.1), (10, 1.0)]


@pytest.mark.parametrize("n", [1, 2, 4, 9])
@pytest.mark.parametrize("wide", [False, True])
def test_matrices_as_a_figure_of_up_to_four(without_ipywidgets, n, wide):
    shape = (4, 40) if wide else (4, 4)
    figure = sliders(lambda rank: (rank * np.eye(*shape), f"rank {rank}"), rank=range(1, n + 1))
    assert isinstance(figure, Figure)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0] == "rank 1"
    assert titles[-1] == f"rank {n}"
    assert len(titles) == min(n, 4)
    for title, ax in zip(titles, figure.axes, strict=True):
        assert ax.images[0].get_array().max() == int(title[5:])


def test_a_figure_alone_is_that_in_the_middle_and_not_left_open(without_ipywidgets):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figure = sliders(curve, alpha=[1, 2, 10], rate=[0.1, 1.0])
    assert figure.axes[0].lines[0].get_ydata()[1] == pytest.approx(1 / 3)
    assert plt.get_fignums() == before


@pytest.mark.parametrize("stops", [{}, {"rank": []}, {"alpha": [1], "rate": []}])
def test_every_slider_needs_a_stop(without_ipywidgets, stops):
    with pytest.raises(ValueError, match="each slider needs a value to stop at"):
        sliders(scaled, **stops)
