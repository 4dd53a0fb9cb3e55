"""The path of the course: it takes three hours and leads on."""

import ast
import builtins
import itertools
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="comes with the extra `lessons`")

from lora_np import exercises
from notebooks import about, build

ROOT = Path(__file__).parents[2]
COURSE = exercises.lessons()
PATH = [lesson for lesson in COURSE if lesson.group == "path"]
GROUPS = ["path", "algebra", "engine", "files", "language", "merging", "evidence", "project"]


def notebook(lesson):
    return json.loads((ROOT / "notebooks" / f"{lesson.stem}.ipynb").read_text(encoding="utf-8"))


def test_the_path_takes_three_hours_with_all_that_is_not_marked_more():
    reading = sum(about.minutes(about.core(notebook(lesson))) for lesson in PATH)
    core = {lesson.slug: [one for one in lesson.exercises if not one.more] for lesson in PATH}
    doing = [one.minutes for some in core.values() for one in some]
    assert 90 < reading < 110
    assert reading + sum(doing) <= 180
    assert len(doing) >= 12
    assert all(core.values())


def test_all_of_the_path_is_counted_once_marks_are_gone():
    """What is marked is a section of a lesson, and the count of an unmarked lesson is its whole."""
    for lesson in PATH:
        whole = notebook(lesson)
        marked = [text for text in sections(whole) if about.MORE in text]
        assert marked
        assert all(re.match(rf"## .+\n\n{re.escape(about.MORE)}\n\n", text) for text in marked)
        assert len(sections(whole)) - len(sections(about.core(whole))) == len(marked)
        text = json.dumps(whole).replace(json.dumps(about.MORE)[1:-1], "more")
        unmarked = json.loads(text)
        assert about.core(unmarked) == unmarked


def test_more_is_only_on_the_path_and_last_in_its_lesson():
    for lesson in COURSE:
        marks = [one.more for one in lesson.exercises]
        assert marks == sorted(marks)
        assert lesson in PATH or not any(marks)


@pytest.mark.parametrize("lesson", PATH, ids=lambda lesson: lesson.slug)
def test_a_lesson_of_the_path_runs_without_what_is_marked_more(lesson):
    known = set(dir(builtins))
    for cell in about.cells(about.core(notebook(lesson)), "code"):
        tree = ast.parse("".join(cell["source"]))
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        known |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
        known |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        known |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        known |= {name.asname or name.name for node in imports for name in node.names}
        assert {node.id for node in names} <= known


def sections(notebook):
    parts = ("".join(cell["source"]) for cell in about.cells(notebook, "markdown"))
    return [text for text in parts if text.startswith("## ")]


@pytest.mark.parametrize("lesson", PATH, ids=lambda lesson: lesson.slug)
def test_the_end_of_a_lesson_lists_what_is_more_apart(lesson):
    (source,) = (source for source in build.lessons() if source.stem == lesson.slug)
    core, _, more = build.ending(source).partition("*More*, ")
    for one in lesson.exercises:
        assert f"*{one.title}*" in (more if one.more else core)
        assert f"*{one.title}*" not in (core if one.more else more)


def test_the_path_comes_first_and_groups_stay_together():
    groups = [lesson.group for lesson in COURSE]
    assert len(PATH) == 7
    assert list(dict.fromkeys(groups)) == GROUPS
    assert groups == sorted(groups, key=GROUPS.index)


def test_the_end_of_a_lesson_of_the_path_leads_along_it():
    sources = {source.stem: source for source in build.lessons()}
    for lesson, after in itertools.pairwise(PATH):
        ending = build.ending(sources[lesson.slug])
        assert f"**Next on the path**: [{after.title}]({after.stem}.ipynb)" in ending
    last = build.ending(sources[PATH[-1].slug])
    assert all(f"*{group}* with [" in last for group in GROUPS[1:-1])
    assert "Next on the path" not in build.ending(sources[COURSE[7].slug])
