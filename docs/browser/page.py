"""Python in a page of the site: answers to exercises, each in a fresh namespace, the cells of its
lesson, and what `given` says of a reader's files.

The worker of the page calls `answer`. ``show`` takes what a cell shows beside its text, at once.
"""

from __future__ import annotations

import base64
import io
import json
import linecache
import os
import struct
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import lora_np_browser
from pyodide.code import eval_code

OWN = "<your code>"
# The end of the puzzles, short enough for a page: tests/laws/test_puzzles_ending.py holds its loss.
SHORT = {"steps": 60, "lr": 0.02, "every": 13}
Asked = dict[str, Any]  # what the page asks
Said = dict[str, Any]  # what it shows
Show = Callable[[str], None]

# Of plt.show(): a cell's figures are shown at its end.
warnings.filterwarnings("ignore", message=".*non-interactive")


def answer(question: str, show: Show) -> str:
    """What the page says of a cell, a run or a check, as JSON."""
    asked: Asked = json.loads(question)
    began = time.monotonic()
    own = {"cell": cell, "set": set_slider, "run": attempt, "check": attempt, "puzzle": solve}
    own["ending"] = end
    if asked["kind"] in own:
        said = own[asked["kind"]](asked, show)
    else:  # which needs neither exercises nor what they import
        from lora_np_browser import given  # type: ignore[attr-defined]

        said = given.answer(asked)
    sys.stdout.flush()
    close_figures()
    return json.dumps({"passed": not said.get("text"), "seconds": time.monotonic() - began} | said)


def file() -> bytes:
    """The bytes of the file that the last answer is about."""
    from lora_np_browser import given  # type: ignore[attr-defined]

    return bytes(given.made)


class Later(types.ModuleType):
    """A module in place of matplotlib's until that is there, and the same then."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(self.__name__), name)


def stand_in() -> None:
    matplotlib, pyplot = Later("matplotlib"), Later("matplotlib.pyplot")
    vars(matplotlib).update(__path__=[], pyplot=pyplot)
    sys.modules |= {"matplotlib": matplotlib, "matplotlib.pyplot": pyplot}


def can_draw() -> None:
    """Use matplotlib itself, which has been fetched."""
    for name in ("matplotlib", "matplotlib.pyplot"):
        if isinstance(sys.modules.get(name), Later):
            del sys.modules[name]
    lora_np_browser.keep_fonts()


stand_in()


def define(code: str, title: str, space: dict[str, Any]) -> Any:
    """Run code whose lines a traceback can show; the value of its last line."""
    linecache.cache[title] = len(code), None, code.splitlines(keepends=True), title
    return eval_code(code, space, filename=title)


def error_text(error: BaseException) -> str:
    """An error as Python shows it, but its last line first, and without the frames of this page."""
    frames = error.__traceback__
    while frames and not frames.tb_frame.f_code.co_filename.startswith(("<your ", "<cell ")):
        frames = frames.tb_next
    *shown, last = traceback.format_exception_only(error)
    return "".join([last, *traceback.format_tb(frames), *shown]).rstrip()


def attempt(asked: Asked, show: Show) -> Said:
    """Run an answer to an exercise after those that it needs, or check it."""
    from lora_np import exercises

    name = asked["name"]
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(exercises.HEADER, space)
    try:
        for earlier, code in asked["before"]:
            define(code, f"<your {earlier}>", space)
        value = define(asked["code"], OWN, space)
        if asked["kind"] == "run" and value is not None:
            print(repr(value))
    except BaseException as error:
        return {"text": error_text(error)}
    if asked["kind"] == "run":
        return {}
    if not callable(space.get(name)):
        return {"text": f"There is no function {name} here."}
    outcome = exercises.check(space[name])
    of = exercises.plural(outcome.exercise.points, "point")
    return {"text": repr(outcome), "passed": outcome.passed, "earned": f"{outcome.points} of {of}"}


def solve(asked: Asked, show: Show) -> Said:
    """Check the line of a puzzle; what a right one draws, or what is wrong."""
    from lora_np_browser import scenes  # type: ignore[attr-defined]

    from lora_np import exercises

    scene = exercises.puzzle(asked["name"]).solve(asked["code"])
    return {"text": scene.said, "html": scenes.as_html(scene), "passed": scene.passed}


def end(asked: Asked, show: Show) -> Said:
    """Train a language model with all lines of the puzzles, in less than two minutes."""
    from lora_np_browser import scenes  # type: ignore[attr-defined]

    from lora_np import exercises

    def progress(text: str) -> None:
        show(json.dumps({"progress": text}))

    folder = tempfile.mkdtemp()
    try:
        scene = exercises.ending(
            asked["lines"], folder, prompt=asked["prompt"], show=progress, **SHORT
        )
    except ValueError as error:
        return {"text": str(error), "passed": False}
    with open(f"{folder}/card.svg", encoding="utf-8") as file:
        card = file.read()
    return {"text": scene.said, "html": scenes.as_html(scene), "card": card, "passed": True}


# the names that its cells have defined, and the sliders that they have shown
lesson: dict[str, Any] = {}
views: list[VBox] = []


def cell(asked: Asked, show: Show) -> Said:
    """Run a cell, after those before it, and show its value and its figures as a notebook does."""
    if asked["fresh"] or not lesson:
        lesson.clear()
        views.clear()
        lesson["__name__"] = "__main__"
        os.chdir(tempfile.mkdtemp())  # for the files that lessons write
    try:
        value = define(asked["code"], f"<cell {asked['number']}>", lesson)
        if value is not None:
            display(value, show)
        show_figures(show)
    except BaseException as error:
        return {"text": error_text(error)}
    return {}


def display(value: Any, show: Show) -> None:
    sys.stdout.flush()
    if isinstance(value, VBox):
        views.append(value)
        *sliders, view = value.children
        stops = [
            {"name": one.name, "stops": [text for text, _ in one.options], "at": one.at}
            for one in sliders
        ]
        show(json.dumps({"html": view.value, "sliders": stops, "view": len(views) - 1}))
    elif hasattr(value, "savefig"):
        show_figure(value, show)
        close_figures(value)  # or it would be shown again as an open one
    elif hasattr(value, "_repr_html_"):
        show(json.dumps({"html": value._repr_html_()}))
    else:
        show(json.dumps({"value": repr(value)}))


def show_figures(show: Show) -> None:
    """Those that pyplot has open."""
    pyplot = drawn()
    for number in pyplot.get_fignums() if pyplot else ():
        show_figure(pyplot.figure(number), show)


def close_figures(which: Any = "all") -> None:
    if pyplot := drawn():
        pyplot.close(which)


def drawn() -> Any:
    """Matplotlib's pyplot, if it has been imported."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    return None if isinstance(pyplot, Later) else pyplot


def show_figure(figure: Any, show: Show) -> None:
    """With two pixels for each one on the page, cut to what is drawn: so Jupyter shows it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=2 * figure.dpi, bbox_inches="tight")
    width, height = struct.unpack(">2I", stream.getvalue()[16:24])
    picture = base64.b64encode(stream.getvalue()).decode("ascii")
    sys.stdout.flush()
    show(json.dumps({"picture": picture, "width": width // 2, "height": height // 2}))


def set_slider(asked: Asked, show: Show) -> Said:
    """Move one of the sliders of a view; what the view then shows."""
    view = views[asked["view"]]
    slider = view.children[asked["slider"]]
    slider.at = asked["at"]
    slider.moved(None)
    return {"html": view.children[-1].value}


# What `lora_np.course.sliders` needs of ipywidgets.


class SelectionSlider:
    """One of the options, chosen by its place ``at``."""

    moved: Callable[[Any], None]

    def __init__(
        self, *, options: list[tuple[str, Any]], value: Any, description: str, layout: Any
    ) -> None:
        self.name, self.options = description, options
        self.at = [one for _, one in options].index(value)

    @property
    def value(self) -> Any:
        return self.options[self.at][1]

    def observe(self, moved: Callable[[Any], None], names: str) -> None:
        self.moved = moved


class HTML:
    """What the sliders change."""

    def __init__(self, value: str) -> None:
        self.value = value


class VBox:
    """Sliders, and below them their `HTML`."""

    def __init__(self, children: Any) -> None:
        self.children = children


sys.modules["ipywidgets"] = widgets = types.ModuleType("ipywidgets")
vars(widgets).update(SelectionSlider=SelectionSlider, HTML=HTML, VBox=VBox)
