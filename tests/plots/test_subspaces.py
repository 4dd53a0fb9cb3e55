"""Angles and cosines are drawn as they are, the control in dashes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from lora_np.plots.subspaces import closest_directions, subspace_angles

ANGLES = {"seeds": np.array([5.0, 60.0, 89.0])}
COSINES = {"LoRA": np.array([1.0, 0.3]), "again": np.array([0.9, 0.5])}


@pytest.fixture
def ax():
    return Figure().add_subplot()


def by_name(ax):
    return {line.get_label(): line for line in ax.lines}


def test_angles_are_counted_from_one_and_chance_is_dashed(ax):
    subspace_angles(ANGLES, chance=np.array([70.0, 80.0]), ax=ax)
    lines = by_name(ax)
    np.testing.assert_array_equal(lines["seeds"].get_xydata(), [[1, 5], [2, 60], [3, 89]])
    assert lines["by chance"].get_linestyle() == "--"
    assert lines["seeds"].get_linestyle() == "-"


def test_cosines_and_the_control(ax):
    closest_directions(COSINES, threshold=0.6, reference="again", ax=ax)
    lines = by_name(ax)
    np.testing.assert_array_equal(lines["LoRA"].get_ydata(), COSINES["LoRA"])
    assert (lines["LoRA"].get_linestyle(), lines["again"].get_linestyle()) == ("-", "--")
    low, high = ax.patches[0].get_extents().transformed(ax.transData.inverted()).intervaly
    assert (low, high) == pytest.approx((0, 0.6))


def test_no_threshold_no_shade(ax):
    closest_directions(COSINES, ax=ax)
    assert not ax.patches
    assert not ax.texts


@pytest.mark.parametrize("draw", [lambda: subspace_angles(ANGLES), lambda: closest_directions(COSINES)])
def test_a_new_figure_is_made_if_none_is_given(draw):
    import matplotlib.pyplot as plt

    draw()
    assert len(plt.get_fignums()) == 1
