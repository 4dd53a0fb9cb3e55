"""The menu: lessons with their numbers and short names, and pages that are reached from others
only.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from claims import records
from lora_np import exercises

# Names of lessons that are longer than the menu is wide.
SHORT = {
    "turn-chats-into-a-served-model": "From chats to a server",
    "compare-with-the-best": "Compare with the best",
    "a-prompt-is-an-update": "A prompt as an update",
    "learn-without-forgetting": "Learn, do not forget",
    "choose-rank-alpha-and-initialisation": "Rank, alpha and start",
    "is-a-lora-enough": "Is a LoRA enough?",
}
# A body links to each of these: tests/site/test_pages.py.
OUTSIDE = re.compile(
    r"practice/|claims/(?!index$)|develop/|learn/(placement|statements|teaching-threats)$"
    r"|use/language-samples$|reference/causal$"
)


class LessonMenu(SphinxDirective):
    """A hidden toctree of lessons: those of the path, or the others; the argument says which."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        of_path = self.arguments[0] == "path"
        entries = [
            f"{lesson.number}. {SHORT.get(lesson.slug, lesson.title)} </lessons/{lesson.stem}>"
            for lesson in exercises.lessons()
            if (lesson.group == "path") is of_path and lesson.group != "project"
        ]
        tree = "\n".join(["```{toctree}", ":hidden:", "", *entries, "```"])
        return self.parse_text_to_nodes(tree)


def leave_out(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.current_document.docname
    if OUTSIDE.match(docname):
        app.env.metadata[docname]["orphan"] = True


def within_topic(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """From a claim on to the next of its topic, and back."""
    known = records()
    name = page.removeprefix("claims/")
    if page == name or name not in known:
        return
    topic = sorted(each for each in known if known[each]["topic"] == known[name]["topic"])
    place = topic.index(name)
    for key, near in (("prev", topic[:place][-1:]), ("next", topic[place + 1 :][:1])):
        context[key] = None
        for each in near:
            link = app.builder.get_relative_uri(page, f"claims/{each}")
            context[key] = {"link": link, "title": known[each]["title"]}


def without_highlights(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Where nothing was found, no words of a search are marked."""
    if page == "404":
        scripts = context["script_files"]
        context["script_files"] = [one for one in scripts if "sphinx_highlight" not in str(one)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("lesson-menu", LessonMenu)
    app.connect("doctree-read", leave_out)
    app.connect("html-page-context", within_topic)
    app.connect("html-page-context", without_highlights, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
