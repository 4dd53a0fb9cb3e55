"""Figures of small files show the numbers that they are given, in words where they can."""

import numpy as np
from matplotlib.figure import Figure

from lora_np.plots import error_against_bytes, rounding_against_strength


def panel():
    return Figure().add_subplot()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_sizes_are_shown_in_kilobytes_and_trained_adapters_by_their_rank():
    curves = {"cut": (np.array([1_000, 4_000]), np.array([0.3, 0.1])), "made": ([2_000], [0.2])}
    ax = error_against_bytes(curves, trained={1: (1_500, 0.25), 4: (3_000, 0.12)}, base=0.4, ax=panel())
    base, cut, made, trained = ax.lines
    np.testing.assert_allclose(cut.get_xydata(), [[1, 0.3], [4, 0.1]])
    np.testing.assert_allclose(made.get_xydata(), [[2, 0.2]])
    np.testing.assert_allclose(trained.get_xydata(), [[1.5, 0.25], [3, 0.12]])
    assert set(base.get_ydata()) == {0.4}
    assert texts(ax) == ["no adapter", "r = 1", "r = 4"]
    assert [text.get_text() for text in ax.get_legend().texts] == ["cut", "made", "trained at its rank"]


def test_curves_alone():
    ax = error_against_bytes({"cut": (np.array([1_000]), np.array([0.3]))}, ax=panel())
    assert len(ax.lines) == 1
    assert not texts(ax)


def test_formats_are_named_at_the_weakest_update_which_is_on_the_right():
    strengths = np.array([1.0, 0.1, 0.01])
    errors = {"bfloat16": 0.003 / strengths, "float16": 0.0004 / strengths}
    ax = rounding_against_strength(strengths, errors, ax=panel())
    assert texts(ax) == ["bfloat16", "float16"]
    assert [text.xy for text in ax.texts] == [(0.01, 0.3), (0.01, 0.04)]
    left, right = ax.get_xlim()
    assert left > right
