"""A figure that moves: what is shown when, on a clock that the test sets."""

import sys
from types import ModuleType

import matplotlib.pyplot as plt
import pytest

from lora_np.course import live_figure, widgets


class Notebook:
    """Notes at each picture what the time is, and what the line shows; a picture takes ``drawing``
    seconds.
    """

    def __init__(self, line, drawing):
        self.line, self.drawing, self.now, self.shown = line, drawing, 0.0, []

    def display(self, figure, *, display_id):
        assert display_id
        self.update(figure)
        return self

    def update(self, figure):
        assert figure is self.line.figure
        self.shown.append((self.now, list(self.line.get_ydata())))
        self.now += self.drawing


@pytest.fixture
def notebook(monkeypatch):
    def notebook(drawing=0.0):
        made = Notebook(plt.subplots()[1].plot([], [])[0], drawing)
        display = ModuleType("IPython.display")
        display.display = made.display
        monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
        monkeypatch.setitem(sys.modules, "IPython.display", display)
        monkeypatch.setattr(widgets, "monotonic", lambda: made.now)
        return made

    return notebook


@pytest.mark.parametrize("every", [0.5, 2.0])
def test_a_picture_at_most_every_so_often_and_the_last_has_all(notebook, every):
    seen = notebook()
    with live_figure(seen.line.figure, every=every) as put:
        for step in range(41):
            seen.now = step / 8
            put(seen.line, step, -step)
    times = [time for time, _ in seen.shown]
    assert times[1:-1] == [every * i for i in range(1, int(5 / every) + 1)]
    assert [len(heights) for _, heights in seen.shown[1:-1]] == [
        8 * time + 1 for time in times[1:-1]
    ]
    assert seen.shown[-1][1] == [-step for step in range(41)]


def test_slow_drawing_takes_a_fifth_of_the_time(notebook):
    seen = notebook(drawing=1.0)
    with live_figure(seen.line.figure) as put:
        for step in range(1000):
            seen.now += 0.1
            put(seen.line, step, 0)
    assert len(seen.shown) * 1.0 == pytest.approx(0.2 * seen.now, rel=0.1)


def test_the_last_picture_also_after_an_interruption(notebook):
    seen = notebook()

    def interrupted():
        with live_figure(seen.line.figure) as put:
            put(seen.line, 0, 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen.shown[-1][1] == [3]


def test_the_notebook_does_not_show_it_a_second_time(notebook):
    figure = notebook().line.figure
    with live_figure(figure):
        assert figure.number not in plt.get_fignums()


def test_a_point_moves_or_is_added_and_the_axes_follow(notebook):
    line = notebook().line
    with live_figure(line.figure) as put:
        for x, y in [(1, 8.0), (2, 9.0), (1, -5.0)]:
            put(line, x, y)
    assert list(line.get_xdata()) == [1, 2]
    assert list(line.get_ydata()) == [-5, 9]
    low, high = line.axes.get_ylim()
    assert -7 < low < -5
    assert 9 < high < 11
