"""Under the title of each lesson: open it in JupyterLite or, once published, elsewhere, or take it
home.

JupyterLite's extension for Sphinx builds the notebooks. What it adds to every page for its own
directives, a web font from another host among it, is taken off again.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

NOT_NEEDED = ("_static/jupyterlite_sphinx", "https://fonts.googleapis.com/")


def add_links(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.current_document.docname
    if not docname.startswith("lessons/"):
        return
    notebook = docname.removeprefix("lessons/") + ".ipynb"
    links = nodes.paragraph(classes=["lesson-links"])
    links += link("Open in the lab", f"../lite/notebooks/index.html?path={notebook}", "lab")
    stem = docname.removeprefix("lessons/")
    if (Path(app.srcdir) / "practice" / f"{stem}.md").exists():
        links += link("Exercises", f"../practice/{stem}.html", "exercises")
    links += link("Glossary", "../reference/glossary.html", "glossary")
    links += link("Download the notebook", f"../_static/notebooks/{notebook}", "download")
    if repository := app.config.lesson_links_repository:
        ref = app.config.lesson_links_ref
        place = f"{repository}/blob/{ref}/notebooks/{notebook}"
        links += link("Colab", f"https://colab.research.google.com/github/{place}", "colab")
        start = f"gh/{repository}/{ref}?labpath=notebooks/{notebook}"
        links += link("Binder", f"https://mybinder.org/v2/{start}", "binder")
    title = next(doctree.findall(nodes.title))
    title.parent.insert(title.parent.index(title) + 1, links)


def link(text: str, uri: str, kind: str) -> nodes.reference:
    return nodes.reference("", text, refuri=uri, classes=[kind])


def leave_out(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    for kind in ("css_files", "script_files"):
        context[kind] = [file for file in context[kind] if not file.filename.startswith(NOT_NEEDED)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("lesson_links_repository", "", "env", str)
    app.add_config_value("lesson_links_ref", "main", "env", str)  # a branch or tag
    app.connect("doctree-read", add_links)
    app.connect("html-page-context", leave_out, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
