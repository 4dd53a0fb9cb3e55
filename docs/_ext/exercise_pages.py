"""A page of exercises for each lesson, written and checked in the browser: directive, links and
data.

The pages themselves are generated into docs/practice/ (see materials.py) from the exercises of the
package.
"""

import html
import json
import keyword
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lora_np import exercises

ROOT = Path(__file__).parents[2]
# bytes of Pyodide 0.27's library and its NumPy, as a page counts them, and of what it does not
# count: compiled code and scripts, as servers compress them
RUNTIME, COMPILED = 5_800_000, 3_500_000
DRAWING = 10_900_000  # bytes of its matplotlib and what that needs
FORM = """\
<form class="exercise" data-exercise="{name}" data-needs="{needs}">
  <label class="visually-hidden" for="code-{name}">Your function {name}</label>
  <textarea id="code-{name}" name="code" rows="{rows}" spellcheck="false" autocomplete="off"
    autocapitalize="off" aria-describedby="keys-{name}">{stub}</textarea>
  <p class="exercise-keys" id="keys-{name}"><kbd>Tab</kbd> indents; <kbd>Esc</kbd>, then
  <kbd>Tab</kbd>,
    leaves the field. <kbd>Shift</kbd>+<kbd>Enter</kbd> runs, <kbd>Ctrl</kbd>+<kbd>Enter</kbd>
    checks.</p>
  <p class="exercise-buttons">
    <button type="button" name="run">Run</button>
    <button type="submit" name="check" class="primary">Check</button>
    <button type="button" name="stop" hidden>Stop</button>
    <button type="button" name="reset">Start again</button>
    <span class="exercise-points" data-show="points">{points}</span>
  </p>
  <p class="python-loading" data-show="loading" hidden>
    <progress max="1" aria-label="Loading Python"></progress> <span></span>
  </p>
  <pre class="exercise-outcome" role="status" aria-live="polite" data-show="outcome" hidden></pre>
  <div class="exercise-printed" hidden>
    <p>Printed<span data-show="cut"></span>:</p>
    <pre data-show="printed"></pre>
  </div>
</form>
<noscript><p>To check an answer here, JavaScript is needed. Or take the exercises home:
<code>lora-np exercises start</code>.</p></noscript>
"""


OPENING = """\
{} functions to write. **Run** runs your code and shows what it prints. **Check** tries your
function, in
this page, on inputs from small to large, and shows the smallest that it finds wrong. Hints unfold
below{}.
Python is fetched once, about 11 MB, when you begin to write. What you write stays on this
machine."""


class ExerciseForm(SphinxDirective):
    """Where one exercise is answered; the argument is its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        exercise = exercises.exercise(self.arguments[0])
        text = FORM.format(
            name=exercise.name,
            needs=" ".join(exercise.needs),
            stub=html.escape(exercise.stub),
            rows=exercise.stub.count("\n") + 6,
            points=exercises.plural(exercise.points, "point"),
        )
        return [nodes.raw("", text, format="html")]


def page(lesson: exercises.Lesson) -> str:
    """Markdown: statement, form, hints and solution of every exercise of a lesson."""
    solved = any(exercise.solution for exercise in lesson.exercises)
    solutions = ", and a solution for after an attempt" * solved
    parts = [f"# Exercises: {lesson.title}", OPENING.format(len(lesson.exercises), solutions)]
    if (ROOT / "notebooks" / f"{lesson.stem}.ipynb").exists():  # a project has none
        parts.append(f"The lesson: [{lesson.title}](../lessons/{lesson.stem}.ipynb).")
    if any(exercise.needs for exercise in lesson.exercises):
        parts.append("Each step uses those before it, as they are written on this page.")
    return "\n\n".join(parts + sections(lesson)) + "\n"


def sections(lesson: exercises.Lesson, level: str = "##") -> list[str]:
    """Markdown: heading, statement, form, hints and solution of each exercise."""
    parts = []
    for number, exercise in enumerate(lesson.exercises, start=1):
        form = f"```{{exercise}} {exercise.name}\n```"
        heading = exercises.heading(exercise, number).replace("##", level, 1)
        parts += [heading, exercise.statement, form]
        titles = ("Hint", "One more hint", "Nearly all of it")
        folded = [*zip(titles, exercise.hints, strict=False), ("A solution", exercise.solution)]
        parts += [f":::{{dropdown}} {title}\n{text}\n:::" for title, text in folded if text]
    return parts


class Dropdown(SphinxDirective):
    """Content that unfolds; the argument is its summary."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        title = html.escape(self.arguments[0])
        start = nodes.raw("", f'<details class="fold"><summary>{title}</summary>', format="html")
        return [start, *self.parse_content_to_nodes(), nodes.raw("", "</details>", format="html")]


def write(folder: Path) -> None:
    """The pages, touched only where they have changed."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        f"{lesson.stem}.md": page(lesson) for lesson in exercises.lessons() if lesson.exercises
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()


def script(
    wheels: list[Path],
    data: list[str],
    runtime: str,
    scripts: list[str],
    hashes: dict[str, str],
    drawing: int,
) -> str:
    """Where the page finds Python, its scripts, the wheels, this package's first, and large data,
    which it fetches when they are opened; the hash of each file, and how many bytes it fetches,
    also to draw.

    Relative addresses begin at the root of the site.
    """
    size = RUNTIME + sum(wheel.stat().st_size for wheel in wheels)
    found = {
        "wheels": [f"_static/python/{wheel.name}" for wheel in wheels],
        "data": data,
        "runtime": runtime,
        "scripts": scripts,
        "hashes": hashes,
        "bytes": size,
        "compiled": COMPILED,
        "drawing": drawing,
        "keywords": keyword.kwlist,
    }
    return f"window.loraPython = {json.dumps(found)};\n"


def add_files(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    runs_python = pagename.startswith(("lessons/", "practice/"))
    if pagename == "index" or runs_python:
        app.add_js_file("python-data.js", loading_method="defer")
    if runs_python:
        app.add_js_file("programs.js", loading_method="defer")
        for name in ("python", "exercises"):
            app.add_css_file(f"{name}.css")
            app.add_js_file(f"{name}.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("exercise", ExerciseForm)
    app.add_directive("dropdown", Dropdown)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
