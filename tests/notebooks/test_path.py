"""The path of the course: it takes three hours, leads on, and keeps every old address."""

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


def test_the_path_takes_three_hours_with_the_first_exercise_of_each_lesson():
    reading = sum(about.minutes(notebook(lesson)) for lesson in PATH)
    doing = sum(lesson.exercises[0].minutes for lesson in PATH)
    assert 100 < reading < 140
    assert reading + doing <= 180


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


def test_an_old_address_leads_to_a_lesson_that_there_is():
    stems = {lesson.stem for lesson in COURSE}
    for folder in ("lessons", "practice"):
        pages = sorted((ROOT / "docs" / "moved" / folder).glob("*.html"))
        assert len(pages) >= 18
        for page in pages:
            text = page.read_text(encoding="utf-8")
            assert page.stem not in stems
            (target,) = set(re.findall(r"([\w-]+)\.html", text))
            assert target in stems
            assert "location.replace(`" in text
