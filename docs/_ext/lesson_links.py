"""Under the title of each lesson: its exercises, the notebook to take home and, once published,
where else to open it.
"""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx


def add_links(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.current_document.docname
    if not docname.startswith("lessons/"):
        return
    notebook = docname.removeprefix("lessons/") + ".ipynb"
    links = nodes.paragraph(classes=["lesson-links"])
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


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("lesson_links_repository", "", "env", str)
    app.add_config_value("lesson_links_ref", "main", "env", str)  # a branch or tag
    app.connect("doctree-read", add_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
