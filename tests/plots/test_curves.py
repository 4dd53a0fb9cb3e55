"""Figures of the linear algebra: they show the numbers they were given, and say which rank is
enough.
"""

import numpy as np
import pytest
from matplotlib.figure import Figure

from lora_np.plots import (
    gallery,
    heatmap,
    image_approximations,
    lines,
    matrix_tiles,
    rank_error_curves,
    singular_spectrum,
)

ERRORS = {"fast": np.array([1.0, 0.1, 0.01, 0.0]), "slow": np.array([1.0, 0.7, 0.5, 0.3])}


@pytest.fixture
def ax():
    return Figure(layout="constrained").add_subplot()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_singular_spectrum_leaves_out_zeros_and_marks_what_is_kept(ax):
    singular_spectrum({"W": np.array([2.0, 1.0, 0.0]), "V": np.array([1.0])}, rank=1, ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 2], [2, 1]])
    assert texts(ax) == ["kept at r = 1", "W", "V"]


def test_lines_are_counted_from_one_or_stand_at_their_places(ax):
    curves = {
        "seeds": np.array([5.0, 60.0, 89.0]),
        "at": (np.array([0.1, 10.0]), np.array([1.0, 0.0])),
    }
    lines(curves, xlabel="x", ylabel="y", ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 5], [2, 60], [3, 89]])
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [[0.1, 1], [10, 0]])
    assert texts(ax) == ["seeds", "at"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")


@pytest.mark.parametrize("logarithmic", ["", "x", "y", "xy"])
def test_lines_on_logarithmic_axes_and_a_reference_in_dashes(ax, logarithmic):
    curves = {"chance": np.array([2.0, 3.0]), "found": np.array([0.0, 1.0])}
    lines(curves, xlabel="", ylabel="", logarithmic=logarithmic, dashed="chance", ax=ax)
    assert (ax.get_xscale() == "log", ax.get_yscale() == "log") == (
        "x" in logarithmic,
        "y" in logarithmic,
    )
    assert [line.get_linestyle() for line in ax.lines] == ["--", "-"]
    # zero has no place on it
    assert len(ax.lines[1].get_xdata()) == (1 if "y" in logarithmic else 2)


def test_a_line_without_a_name_is_no_reference(ax):
    lines({"": np.array([2.0, 1.0])}, xlabel="", ylabel="", ax=ax)
    assert ax.lines[0].get_linestyle() == "-"


def test_rank_error_curves_name_the_smallest_rank_that_is_enough(ax):
    rank_error_curves(ERRORS, tolerance=0.1, ax=ax)
    assert texts(ax) == ["fast: 1", "slow"]
    drawn = {tuple(line.get_ydata()) for line in ax.lines}
    assert tuple(ERRORS["fast"][:3]) in drawn
    assert tuple(ERRORS["slow"]) in drawn
    assert [1.0, 0.1] in [
        line.get_xydata()[0].tolist() for line in ax.lines if len(line.get_xdata()) == 1
    ]


def test_rank_error_curves_leave_out_rounding(ax):
    rank_error_curves({"exact": np.array([1.0, 0.5, 1e-15, 0.0])}, ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 1], [1, 0.5]])
    assert texts(ax) == ["exact"]


def test_a_level_is_reached_from_below_or_from_above(ax):
    rising = np.array([0.1, 0.6, 0.95, 0.7])
    curves = {"up": rising, "down": 1 - rising**2, "never": rising / 10}
    lines(curves, xlabel="", ylabel="", level=0.5, ax=ax)
    assert texts(ax) == ["up: 2", "down: 3", "never"]
    marked = [line.get_xydata().tolist() for line in ax.lines if len(line.get_xdata()) == 1]
    assert marked == [[[2, 0.5]], [[3, 0.5]]]


def test_a_zero_matrix_can_be_drawn(ax):
    rank_error_curves({"zero": np.zeros(4)}, ax=ax)
    ax.figure.canvas.draw()


def test_names_stand_beside_their_own_line(ax):
    rank_error_curves(ERRORS, ax=ax)
    for text, errors in zip(ax.texts, ERRORS.values(), strict=True):
        rank, error = text.xy
        assert errors[rank] == error
    # The lower of two lines has its name below, the upper one above.
    assert [text.get_verticalalignment() for text in ax.texts] == ["top", "bottom"]


@pytest.mark.parametrize("logarithmic", ["", "y"])
def test_empty_curves_are_left_out(ax, logarithmic):
    curves = {"none": [], "one": [2.0, 1.0]}
    lines(curves, xlabel="", ylabel="", logarithmic=logarithmic, level=1.5, ax=ax)
    assert texts(ax) == ["one: 2"]
    rank_error_curves({"none": []}, ax=ax)


def test_more_curves_than_colours_can_be_drawn(ax):
    lines({f"M{i}": np.linspace(0, 1, 5) ** (1 + i) for i in range(9)}, xlabel="", ylabel="", ax=ax)
    assert len(ax.lines) == 9


def test_a_map_has_a_number_in_each_tile_that_is_finite(ax):
    losses = np.array([[0.5, 0.25, 0.1], [0.3, np.nan, np.inf]])
    rates = [1e-3, 1e-2, 1e-1]
    heatmap(
        losses, rows=[1, 16], columns=rates, numbers=".3f", xlabel="rate", ylabel="alpha", ax=ax
    )
    found = {text.get_position(): text.get_text() for text in ax.texts}
    assert [found[column, 0] for column in range(3)] == ["0.500", "0.250", "0.100"]
    assert [found[column, 1] for column in range(3)] == ["0.300", "", ""]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "16"]


@pytest.mark.parametrize("numbers", ["", ".3f"])
def test_a_map_without_a_finite_value_has_empty_tiles(ax, numbers):
    heatmap(np.full((2, 3), np.nan), numbers=numbers, xlabel="", ylabel="", ax=ax)
    ax.figure.canvas.draw()
    assert not any(texts(ax))


@pytest.mark.parametrize("draw", [gallery, matrix_tiles])
def test_no_picture_is_refused(draw):
    with pytest.raises(ValueError, match=f"{draw.__name__} needs at least one"):
        draw({}, figure=Figure())


def test_a_map_puts_each_value_where_the_axes_say(ax):
    values = np.arange(6.0).reshape(2, 3) / 6
    heatmap(values, limits=(0, 1), xlabel="j", ylabel="i", ax=ax)
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), values)
    assert tuple(image.get_extent()) == (0.5, 3.5, 0.5, 2.5)
    assert image.origin == "lower"
    assert image.get_clim() == (0, 1)


def test_compression_shows_each_approximation_and_what_it_lacks():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(6, 4))
    near, far = image + 0.1, image * 0
    figure = image_approximations(image, {"near": near, "far": far}, figure=Figure())
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    for drawn, expected in zip(shown, [image, near, far, image - near, image - far], strict=True):
        np.testing.assert_allclose(drawn, expected)
    scales = {ax.images[0].get_clim() for ax in figure.axes[4:]}
    assert len(scales) == 1
    low, high = scales.pop()
    assert low == -high


@pytest.mark.parametrize("stacked", [True, False])
def test_a_gallery_shows_its_pictures_side_by_side_or_stacked(stacked):
    images = {"wide": np.eye(3, 12), "also": 1 - np.eye(2, 8)}
    figure = gallery(images, stacked=stacked, figure=Figure())
    for ax, (heading, image) in zip(figure.axes, images.items(), strict=True):
        assert ax.get_title() == heading
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
    first, second = (ax.get_subplotspec().get_geometry()[2] for ax in figure.axes)
    assert figure.axes[0].get_gridspec().get_geometry() == ((2, 1) if stacked else (1, 2))
    assert first < second


@pytest.mark.parametrize(
    "draw",
    [
        lambda: singular_spectrum({"W": np.array([1.0, 0.5])}),
        lambda: rank_error_curves(ERRORS),
        lambda: heatmap(np.eye(3), xlabel="", ylabel=""),
        lambda: image_approximations(np.eye(3), {"r = 1": np.eye(3)}),
    ],
)
def test_a_new_figure_is_made_if_none_is_given(draw):
    import matplotlib.pyplot as plt

    draw()
    assert len(plt.get_fignums()) == 1
