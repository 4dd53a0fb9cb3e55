"""The figure of forgetting puts every model at its two accuracies, with its name where there is room."""

import pytest
from matplotlib.figure import Figure

from lora_np.course import old_and_new


@pytest.fixture
def ax():
    groups = {
        "not adapted": {"": (0.97, 0.1)},
        "full": {"slow": (0.38, 0.97), "fast": (0.25, 0.98)},
        "LoRA": {"r = 1": (0.9, 0.6), "r = 8": (0.3, 0.96)},
    }
    return old_and_new(groups, labels=("old", "new"), ax=Figure().add_subplot())


def test_points_and_axes(ax):
    shown = [line.get_xydata().tolist() for line in ax.lines if line.get_marker() != "None"]
    assert shown == [[[0.97, 0.1]], [[0.38, 0.97], [0.25, 0.98]], [[0.9, 0.6], [0.3, 0.96]]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("old", "new")
    assert [text.get_text() for text in ax.get_legend().texts] == ["not adapted", "full", "LoRA"]


def test_a_name_stands_above_the_highest_of_its_neighbours_and_below_the_others(ax):
    above = {text.get_text(): text.xyann[1] > 0 for text in ax.texts}
    assert above == {"": False, "slow": False, "fast": True, "r = 1": True, "r = 8": False}


def test_groups_differ_in_colour_and_marker(ax):
    points = [line for line in ax.lines if line.get_marker() != "None"]
    assert len({line.get_color() for line in points}) == len({line.get_marker() for line in points}) == 3
