"""Cells of a lesson: a figure first, its code folded below it; scripts that run them; exercises at
its end.

What is recorded is complete without a script (see explorer/cells.js for what they add).
"""

from pathlib import Path
from typing import Any

import exercise_pages
import pictures
from docutils import nodes
from sphinx.application import Sphinx

from lora_np import exercises

FOLD = '<details class="cell-code"><summary>Show the code</summary>'
ELSEWHERE, HERE = "Write and check them with", "Write and check them here, with"


def figures_first(app: Sphinx, doctree: nodes.document) -> None:
    if not app.env.current_document.docname.startswith("lessons/"):
        return
    for cell in [
        node for node in doctree.findall(nodes.container) if node.get("nb_element") == "cell_code"
    ]:
        images = [image for output in cell.children[1:] for image in output.findall(nodes.image)]
        for image in images:
            image["alt"] = cell["cell_metadata"]["alt"]
            if not image["uri"].endswith(".png"):  # as notebooks/build.py tells them apart
                cell["classes"].append("photograph")
                image.replace_self(
                    pictures.framed(image.deepcopy(), Path(app.srcdir, image["uri"]))
                )
        if images:
            source, output = cell.children
            fold = [nodes.raw("", text, format="html") for text in (FOLD, "</details>")]
            cell.children = []
            cell += [output, fold[0], source, fold[1]]


def with_exercises(notebook: Any, stem: str) -> Any:
    """The notebook as its page has it: with the forms of its exercises at its end."""
    (lesson,) = (one for one in exercises.lessons() if one.stem == stem)
    if not lesson.exercises:
        return notebook
    ending = notebook.cells[-1]
    heading, listed, *after = ending.source.split("\n\n")  # as notebooks/build.py ends a lesson
    if ELSEWHERE not in listed or not after:
        raise ValueError(
            f"{stem} must end with its exercises and the next lesson, got {ending.source!r}"
        )
    forms = exercise_pages.sections(lesson, "###")
    ending.source = "\n\n".join([heading, listed.replace(ELSEWHERE, HERE), *forms, *after])
    return notebook


def add_files(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    if pagename.startswith("lessons/"):
        app.add_css_file("cells.css")
        app.add_js_file("cells.js", loading_method="defer", priority=600)  # after python.js


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", figures_first)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
