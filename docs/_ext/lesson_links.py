"""Under the title of each lesson: run it in the browser, or take the notebook home."""

from docutils import nodes
from sphinx.application import Sphinx


def add_links(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.current_document.docname
    if not docname.startswith("lessons/"):
        return
    notebook = docname.removeprefix("lessons/") + ".ipynb"
    links = nodes.paragraph(classes=["lesson-links"])
    links += link(
        "Run this in your browser", f"../lite/notebooks/index.html?path={notebook}", "run-in-browser"
    )
    links += link("Download the notebook", f"../lite/files/{notebook}", "download")
    title = next(doctree.findall(nodes.title))
    title.parent.insert(title.parent.index(title) + 1, links)


def link(text: str, uri: str, kind: str) -> nodes.reference:
    return nodes.reference("", text, refuri=uri, classes=[kind])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", add_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
