"""The manner of a lesson, held against every committed notebook, as any viewer shows it."""

import json
import re

import pytest

from lora_np import exercises
from lora_np.course.notebooks import lessons
from notebooks import about

LESSONS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in lessons()}
pytestmark = pytest.mark.parametrize("name", LESSONS)


def cells(name, kind):
    return about.cells(LESSONS[name], kind)


def prose(name):
    return about.prose(LESSONS[name])


def outputs(name):
    return [output for cell in cells(name, "code") for output in cell["outputs"]]


def test_headings_are_in_order(name):
    levels = [len(marks) for marks in re.findall(r"^(#+) ", prose(name), flags=re.MULTILINE)]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}


def test_opens_with_a_question_and_says_what_it_is_for(name):
    opening = prose(name).split("\n## ")[0]
    assert about.question(LESSONS[name]) in " ".join(opening.split())
    assert "After this lesson you can\n\n- " in opening


def test_needs_only_lessons_that_came_before(name):
    needed = re.search(r"^You need (.+?)\n\n", prose(name) + "\n\n", flags=re.MULTILINE | re.DOTALL)
    before = {lesson.title for lesson in exercises.lessons() if lesson.stem < name}
    assert set(re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", " ".join(needed[1].split()))) <= before


def test_ends_with_the_law_what_can_be_done_and_sources(name):
    headings = re.findall(r"^## (.+)$", prose(name), flags=re.MULTILINE)
    practised = any(lesson.exercises for lesson in exercises.lessons() if lesson.stem == name)
    ending = "Exercises, and the next lesson" if practised else "The next lesson"
    assert headings[-4:] == ["The law", "What you can do now", "Further reading", ending]
    listed = prose(name).split("## Further reading")[1].split("\n## ")[0].replace(about.MORE, "")
    sources = listed.strip().split("\n- ")
    assert len(sources) >= 3
    assert all(re.search(r"\d{4}|https://", source) for source in sources)


def test_each_question_at_the_end_has_its_answer_folded_below(name):
    asked = prose(name).split("## What you can do now")[1].split("## Further reading")[0]
    questions = re.findall(r"^- (.+?)(?=^- |\Z)", asked, flags=re.MULTILINE | re.DOTALL)
    assert len(questions) >= 2
    for question in questions:
        assert re.search(
            r"\n\n  <details><summary>Answer</summary>\n\n  .+\n\n  </details>", question, re.DOTALL
        )


def test_paragraphs_are_short(name):
    read = re.sub(r"<!--.*?-->", "", prose(name))
    paragraphs = [p for p in read.split("\n\n") if not p.startswith(("$$", "|", "- ", "#"))]
    words = [len(re.sub(r"\$[^$]*\$", "x", paragraph).split()) for paragraph in paragraphs]
    assert max(words) <= 90


def test_reading_and_running_takes_twenty_minutes_at_most(name):
    assert (
        LESSONS[name]["metadata"]["seconds"] % 10 == 0 < LESSONS[name]["metadata"]["seconds"] <= 60
    )
    assert 7 <= about.minutes(LESSONS[name]) <= 20


def test_the_gallery_gets_its_question_what_it_is_for_and_its_cover(name):
    notebook = LESSONS[name]
    assert about.question(notebook).endswith("?")
    assert 3 <= len(about.abilities(notebook)) <= 5
    assert len(about.cover(notebook).content) > 1000


def test_figures_have_alt_text(name):
    figures = [
        output["metadata"][kind]
        for output in outputs(name)
        for kind in output.get("data", {})
        if "image/" in kind
    ]
    assert figures
    assert all(len(figure["alt"].split()) >= 8 for figure in figures)


def test_executed_in_order_without_errors_or_noise(name):
    code = cells(name, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert {output["output_type"] for output in outputs(name)} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert all(output.get("name") != "stderr" for output in outputs(name))
    results = [output["data"] for output in outputs(name) if "data" in output]
    texts = ["".join(data["text/plain"]) for data in results if [*data] == ["text/plain"]]
    artists = re.compile(r"\[?<|\[?Text\(")  # what matplotlib returns beside the figure
    assert not [text for text in texts if artists.match(text)]
    assert all("execution" not in cell["metadata"] for cell in code)
    assert "widgets" not in LESSONS[name]["metadata"]


def test_links_lead_somewhere_wherever_it_is_opened(name):
    """To other lessons, which lie next to it, or to an address: what is only on the site is linked
    there.
    """
    for target in re.findall(r"\]\(([^)]+)\)", prose(name)):
        assert re.match("https?://", target) or target.removesuffix(".ipynb") in LESSONS, target


def test_fits_every_viewer(name):
    notebook = LESSONS[name]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["language_info"]["name"] == "python"
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert len(json.dumps(notebook)) < 500_000


def test_training_shows_no_progress_bar(name):
    for cell in cells(name, "code"):
        source = "".join(cell["source"])
        assert len(re.findall(r"\.(?:fit|sweep|finetune)\(", source)) == source.count(
            "progress=False"
        )


def test_headings_and_figures_begin_slides(name):
    """What ``jupyter nbconvert --to slides`` asks for."""
    for cell in LESSONS[name]["cells"]:
        text, kind = (
            "".join(cell["source"]),
            cell["metadata"].get("slideshow", {}).get("slide_type", ""),
        )
        if cell["cell_type"] == "markdown":
            assert kind == ("slide" if text.startswith("#") else "")
            assert not re.search(r"\n#+ ", text)
        elif "alt" in cell["metadata"]:
            assert kind == "subslide"
        else:
            assert kind in ("", "skip")
