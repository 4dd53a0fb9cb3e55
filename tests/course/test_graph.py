"""A computation stands from left to right, each arrow and each gradient at its place."""

import pytest
from matplotlib.figure import Figure

from lora_np.course.graphs import computation_graph, layout

STEPS = {"p": ("w · x", ["w", "x"]), "e": ("p - y", ["p", "y"]), "L": ("e²", ["e"])}
VALUES = {"w": 3, "x": 2, "y": 4, "p": 6, "e": 2, "L": 4}


@pytest.fixture
def ax():
    return Figure().add_subplot()


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def test_a_step_stands_right_of_all_its_inputs_and_no_two_share_a_place():
    steps = {**STEPS, "s": ("L + w + e", ["L", "w", "e"])}
    places = layout(steps)
    for step, (_, inputs) in steps.items():
        assert all(places[name][0] < places[step][0] for name in inputs)
    assert len(set(places.values())) == len(places) == 7
    assert places["y"][0] == places["p"][0]  # a leaf waits until it is needed


def test_values_slopes_and_gradients_are_written(ax):
    gradients = {"w": 8, "x": 12, "y": -4}
    computation_graph(STEPS, values=VALUES, gradients=gradients, slopes={("y", "e"): -1}, ax=ax)
    assert {"w", "p = w · x", "L = e²", "6", "gradient 12", "gradient −4", "× −1"} <= set(texts(ax))
    assert sum("gradient" in text for text in texts(ax)) == 3


def test_one_arrow_for_each_input_of_each_step(ax):
    computation_graph({**STEPS, "s": ("L · L", ["L", "L"])}, values={**VALUES, "s": 16}, ax=ax)
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    assert len(arrows) == 6  # L is used twice by s, along one arrow


def test_a_step_without_a_value_is_an_error(ax):
    with pytest.raises(KeyError, match="L"):
        computation_graph(STEPS, values=dict.fromkeys("wxype", 0.0), ax=ax)


def test_a_new_figure_is_made_if_none_is_given():
    import matplotlib.pyplot as plt

    computation_graph(STEPS, values=VALUES)
    assert len(plt.get_fignums()) == 1
