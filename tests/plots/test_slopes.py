"""The best step of each difference is marked with its error."""

import numpy as np
from matplotlib.figure import Figure

from lora_np.plots.slopes import slope_errors

STEPS = np.geomspace(1e-8, 1e-1, 8)


def test_the_best_step_is_marked_and_exact_slopes_have_no_place():
    ax = Figure().add_subplot()
    central = STEPS**2 + 1e-16 / STEPS
    central[3] = 0.0
    slope_errors(STEPS, {"one-sided": STEPS + 1e-16 / STEPS, "central": central}, ax=ax)
    lines = [line for line in ax.lines if line.get_marker() == "None"]
    assert [len(line.get_xdata()) for line in lines] == [8, 7]
    marked = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o"]
    best = int(np.argmin(np.where(central > 0, central, 1)))
    np.testing.assert_allclose(marked, [[1e-8, 2e-8], [STEPS[best], central[best]]])
    assert "one-sided\n2e-08 at 1e-08" in [text.get_text() for text in ax.texts]


def test_the_higher_line_has_its_name_above():
    ax = Figure().add_subplot()
    slope_errors(STEPS, {"low": STEPS**2, "high": STEPS}, ax=ax)
    sides = {text.get_text().split("\n")[0]: text.get_horizontalalignment() for text in ax.texts}
    assert (sides["low"], sides["high"]) == ("left", "right")


def test_a_new_figure_is_made_if_none_is_given():
    import matplotlib.pyplot as plt

    slope_errors(STEPS, {"one": STEPS})
    assert len(plt.get_fignums()) == 1
