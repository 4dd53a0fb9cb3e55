"""The palette: each colour can be told from white, and from a dark page on which it is inverted."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lora_np.plots import ACCENT, CYCLE, FULL, INK, LORA, MUTED, OPTIMUM, SKY, label_line

COLORS = {ACCENT, *CYCLE, FULL, INK, LORA, MUTED, OPTIMUM, SKY}
PAGE = np.array(to_rgb("#131416"))  # of the site in the dark
WEIGHTS = np.array([0.213, 0.715, 0.072])  # of red, green and blue, as in CSS filters


def luminance(color):
    parts = np.array(color)
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return np.array([0.2126, 0.7152, 0.0722]) @ linear


def contrast(one, other):
    lower, upper = sorted([luminance(one), luminance(other)])
    return (upper + 0.05) / (lower + 0.05)


def in_the_dark(color):
    """As site.css draws it: invert(1) hue-rotate(180deg), then screened onto the page."""
    inverted = 1 - np.array(color)
    turned = np.clip(2 * WEIGHTS @ inverted - inverted, 0, 1)
    return 1 - (1 - turned) * (1 - PAGE)


def contrasts(color):
    return contrast(color, (1, 1, 1)), contrast(in_the_dark(color), PAGE)


@pytest.mark.parametrize("color", sorted(COLORS))
def test_a_line_has_a_contrast_of_three_and_its_label_of_four_and_a_half(color):
    assert min(contrasts(to_rgb(color))) >= 3
    ax = Figure().add_subplot()
    label_line(ax, 0, 0, "label", color)
    assert min(contrasts(to_rgb(ax.texts[0].get_color()))) >= 4.5
