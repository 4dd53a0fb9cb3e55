"""The lessons at a glance: their cards, their minutes, a table for teachers, and what was read so
far.

Numbers and titles come from the package's list of lessons, everything else from the notebooks.
"""

import html
import json
import math
from pathlib import Path
from typing import Any

import pictures
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lora_np import exercises
from notebooks import about

ROOT = Path(__file__).parents[2]
CARD = """\
<li data-lesson="{stem}" data-exercises="{exercises}">"""
LABEL = """\
<p class="gallery-label">Lesson {number} · {group} <span>{minutes} minutes</span></p>"""
HEAD = """\
<div class="gallery-progress" hidden><p role="status"></p>
<button type="button">Forget what I have done</button></div>
<ol class="gallery">"""


def notebooks() -> list[tuple[exercises.Lesson, Any]]:
    """Lessons with their notebooks; a project has none."""
    found = [
        (lesson, ROOT / "notebooks" / f"{lesson.stem}.ipynb") for lesson in exercises.lessons()
    ]
    return [
        (lesson, json.loads(path.read_text(encoding="utf-8")))
        for lesson, path in found
        if path.exists()
    ]


class Gallery(SphinxDirective):
    """A card for each lesson: number, minutes, title, question and cover."""

    def run(self) -> list[nodes.Node]:
        cards = [node for lesson, notebook in notebooks() for node in self.card(lesson, notebook)]
        return [raw(HEAD), *cards, raw("</ol>")]

    def card(self, lesson: exercises.Lesson, notebook: Any) -> list[nodes.Node]:
        names = " ".join(exercise.name for exercise in lesson.exercises)
        name = cover_name(lesson, notebook)
        cover: nodes.Node = nodes.image(
            uri=f"/lessons/covers/{name}", alt=about.cover(notebook).alt
        )
        if not name.endswith(".png"):
            cover = pictures.framed(cover, ROOT / "notebooks" / "covers" / name)
        text = f"[{lesson.title}](../lessons/{lesson.stem}.ipynb)\n\n{about.question(notebook)}"
        return [
            raw(CARD.format(stem=lesson.stem, exercises=html.escape(names))),
            raw('<div class="gallery-cover">'),
            cover,
            raw("</div>"),
            raw(
                LABEL.format(
                    number=lesson.number,
                    group=lesson.group,
                    minutes=math.ceil(about.minutes(notebook)),
                )
            ),
            *self.parse_text_to_nodes(text),
            raw('<p class="gallery-done" hidden></p></li>'),
        ]


class LessonMinutes(SphinxDirective):
    """For learners: how long each lesson and its exercises take, and how much of that is *more*."""

    def run(self) -> list[nodes.Node]:
        rows = [
            "| | lesson | group | minutes | of these *more* | running | exercises, minutes "
            "| of these *more* |",
            "|---|---|---|---:|---:|---:|---:|---:|",
        ]
        for lesson, notebook in notebooks():
            title = f"[{lesson.title}](../lessons/{lesson.stem}.ipynb)"
            group = f"**{lesson.group}**" if lesson.group == "path" else lesson.group
            read, core = about.minutes(notebook), about.minutes(about.core(notebook))
            more = sum(exercise.minutes for exercise in lesson.exercises if exercise.more)
            cells = [lesson.number, title, group, math.ceil(read), round(read - core) or ""]
            cells += [f"{notebook['metadata']['seconds']} s", practice(lesson), more or ""]
            rows.append(f"| {' | '.join(map(str, cells))} |")
        read, done = path_minutes()
        rows.append(
            f"\nThe path without *more*: {read:.0f} minutes to read and run, and {done} for "
            f"{len(path_exercises())} exercises, {read + done:.0f} in all. After the last lesson, "
            "a project: "
            + ", ".join(
                f"[{lesson.title}](../practice/{lesson.stem}.md), {minutes_of(lesson)} minutes"
                for lesson in exercises.lessons()
                if lesson.group == "project"
            )
            + "."
        )
        return self.parse_text_to_nodes("\n".join(rows))


class LessonGroups(SphinxDirective):
    """The lessons beyond the path, by their groups: number, title and question."""

    def run(self) -> list[nodes.Node]:
        groups: dict[str, list[str]] = {}
        for lesson, notebook in notebooks():
            title = f"[{lesson.title}](../lessons/{lesson.stem}.ipynb)"
            row = f"| {lesson.number} | {title} | {about.question(notebook)} |"
            groups.setdefault(lesson.group, []).append(row)
        rows = ["| | lesson | what it asks |", "|---|---|---|"]
        for group, lessons in groups.items():
            if group != "path":
                rows += [f"| | **{group}** | |", *lessons]
        return self.parse_text_to_nodes("\n".join(rows))


class LessonTable(SphinxDirective):
    """For teachers: what students can do after each lesson, its minutes and its points."""

    def run(self) -> list[nodes.Node]:
        rows = [
            "| | lesson | minutes | exercises | afterwards students can |",
            "|---|---|---:|---|---|",
        ]
        for lesson, notebook in notebooks():
            points = exercises.plural(lesson.points, "point")
            rows.append(
                f"| {lesson.number} | {lesson.title} | {math.ceil(about.minutes(notebook))} "
                f"| {len(lesson.exercises)}, {points} | {'; '.join(about.abilities(notebook))} |"
            )
        return self.parse_text_to_nodes("\n".join(rows))


def minutes_of(lesson: exercises.Lesson) -> int:
    return sum(exercise.minutes for exercise in lesson.exercises)


def practice(lesson: exercises.Lesson) -> str:
    """The minutes of its exercises, as a link to them."""
    if not lesson.exercises:
        return ""
    return f"[{minutes_of(lesson)}](../practice/{lesson.stem}.md)"


def path_minutes() -> tuple[float, int]:
    """Minutes of the path to read and run, and for its exercises: all that is not *more*."""
    path = [notebook for lesson, notebook in notebooks() if lesson.group == "path"]
    read = sum(about.minutes(about.core(notebook)) for notebook in path)
    return read, sum(exercise.minutes for exercise in path_exercises())


def path_exercises() -> list[exercises.Exercise]:
    """The exercises of the path that are not marked *more*."""
    path = [lesson for lesson in exercises.lessons() if lesson.group == "path"]
    return [one for lesson in path for one in lesson.exercises if not one.more]


def raw(text: str) -> nodes.Node:
    return nodes.raw("", text, format="html")


def cover_name(lesson: exercises.Lesson, notebook: Any) -> str:
    return f"{lesson.stem}.{about.cover(notebook).kind.removeprefix('image/')}"


def write_covers(folder: Path) -> None:
    """Copy the covers that notebooks/build.py drew; only where they have changed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {path.name: path.read_bytes() for path in (ROOT / "notebooks" / "covers").iterdir()}
    for name, content in made.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
    for path in folder.iterdir():
        if path.name not in made:
            path.unlink()


def add_files(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    if pagename == "learn/index" or pagename.startswith("lessons/"):
        app.add_js_file("progress.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("gallery", Gallery)
    app.add_directive("lesson-groups", LessonGroups)
    app.add_directive("lesson-minutes", LessonMinutes)
    app.add_directive("lesson-table", LessonTable)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
