"""What a shared link says of a page: a description for each, and a card for those that are shared
most.
"""

import re
from typing import Any

import gallery
from docutils import nodes
from sphinx.application import Sphinx

from claims import records
from notebooks import about

LONGEST = 200  # of a description: what previews and results of searches show
CARDS = {"use/fit": "card-fit.png", "learn/puzzles": "card-puzzles.png"}


def first_words(doctree: nodes.document) -> str:
    """The first paragraph that is prose: no row of links, no label."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        linked = sum(len(link.astext()) for link in paragraph.findall(nodes.reference))
        if len(text) > 30 and linked < 0.6 * len(text) and " " in text:
            return text
    return ""


def cut(text: str) -> str:
    """Whole sentences as far as there is room, or else whole words."""
    if len(text) <= LONGEST:
        return text
    sentences = re.match(rf"(?s).{{40,{LONGEST - 1}}}[.?!](?=\s)", text)
    return sentences[0] if sentences else f"{text[: LONGEST - 1].rsplit(' ', 1)[0].rstrip(',;:')}…"


def of_lessons() -> dict[str, str]:
    """The question that each lesson answers."""
    questions = {}
    for lesson, notebook in gallery.notebooks():
        question = re.sub(r"[*_`$\\]", "", about.question(notebook))
        questions[f"lessons/{lesson.stem}"] = f"{question} A lesson with LoRA in plain NumPy."
        if lesson.exercises:
            titles = ", ".join(exercise.title for exercise in lesson.exercises)
            about_them = f"{lesson.title}, exercises to try here. {titles}."
            questions[f"practice/{lesson.stem}"] = about_them
    return questions


def of_claims() -> dict[str, str]:
    """What is claimed, and what was found."""
    return {
        f"claims/{name}": f"{claim['title']} Verdict: {claim['verdicts']}. {claim['advice']}"
        for name, claim in records().items()
    }


def describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if doctree is None:
        return
    if not hasattr(app.env, "shared_descriptions"):
        app.env.shared_descriptions = of_lessons() | of_claims()
    known = app.env.shared_descriptions
    meta = context["meta"] = dict(context.get("meta") or {})
    text = cut(known.get(page) or meta.get("og:description") or first_words(doctree) or page)
    meta["og:description"] = text
    if 'name="description"' not in context["metatags"]:
        escaped = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        context["metatags"] += f'\n<meta name="description" content="{escaped}">'
    card = CARDS.get(page) or (
        f"card-{page.removeprefix('claims/')}.png"
        if page.startswith("claims/") and page in known
        else ""
    )
    if card and app.config.html_baseurl:
        meta["og:image"] = f"{app.config.html_baseurl}_static/{card}"
        meta["og:image:alt"] = text


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", describe, priority=400)  # before opengraph
    return {"parallel_read_safe": True, "parallel_write_safe": True}
