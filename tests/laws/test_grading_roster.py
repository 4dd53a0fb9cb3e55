"""A class by its roster: who is absent, what a gradebook imports, and what the class did not
understand.
"""

import csv
import io
import sys

import pytest

from lora_np.exercises import check, exercise, lessons
from lora_np.grading import grade
from lora_np.grading.classroom import broken_laws, part_of, read_roster

pytestmark = pytest.mark.skipif(sys.platform == "emscripten", reason="no processes in a browser")

ROSTER = 'Student,ID,Email\n"Byron, Ada",17,ada@x.org\nBob,18,bob@x.org\nCy,19,cy@x.org\nDan,20,dan@x.org\nEve,21,eve@x.org\nGil,22,gil@x.org\nHo,23,ho@x.org\n'
WITHOUT_SCALE = "import numpy as np\ndef lora_forward(x, W0, A, B, alpha):\n    return x @ W0.T + x @ A.T @ B.T\n"
RIGHT = WITHOUT_SCALE.replace("+ x", "+ alpha / len(A) * x")


def rows(path):
    return list(csv.reader(io.StringIO(path.read_text("utf-8"))))


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class")
    (folder / "roster.csv").write_text("\ufeff" + ROSTER, "utf-8")
    handed_in = folder / "submissions"
    (handed_in / "Byron, Ada_4711_file").mkdir(parents=True)
    (handed_in / "Byron, Ada_4711_file" / "week.py").write_text(RIGHT)
    (handed_in / "Bob.py").write_text(WITHOUT_SCALE)
    (handed_in / "Cy.py").write_text("def lora_forward(x, W0, A, B, alpha):\n    return x @@ W0\n")
    (handed_in / "stranger.py").write_text(WITHOUT_SCALE)
    (handed_in / "Eve_9_file").mkdir()
    (handed_in / "Eve_9_file" / "work.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    (handed_in / "Eve_9_file" / "letter.docx").write_bytes(b"")
    (handed_in / "ivy (copy).py.txt").write_text(RIGHT)
    (handed_in / "Gil.py").write_bytes(b"PK\x03\x04" + bytes(9) + RIGHT.encode())
    (handed_in / "Ho").mkdir()
    (handed_in / "Ho" / "week.py").write_text(RIGHT, "utf-16")
    (handed_in / "Ho" / "notes.ipynb").write_text(f'{{"cells": ["{RIGHT}"')
    (handed_in / "jo.zip").write_bytes(b"PK")
    (handed_in / "read me.txt").write_text("for the teacher")
    names = ["lora_forward", "lora_start"]
    grades = grade(handed_in, only=names, roster=folder / "roster.csv", rng=3, jobs=1)
    return grades, grades.write(folder / "grades.csv", "LoRA (99)")


def test_everybody_on_the_roster_has_a_row_and_strangers_come_last(graded):
    told = [(row["student"], row["points"], row["state"]) for row in graded[0].table.records]
    assert told == [
        ("Byron, Ada", 1, ""), ("Bob", 0, ""), ("Cy", 0, "does not parse"), ("Dan", "", "absent"),
        ("Eve", "", "unreadable"), ("Gil", "", "unreadable"), ("Ho", 1, "partly unreadable"), ("ivy (copy)", 1, ""), ("jo", "", "unreadable"), ("stranger", 0, ""),
    ]  # fmt: skip


def test_a_part_of_the_exercises_is_graded(graded):
    assert [one.name for one in graded[0].exercises] == ["lora_forward", "lora_start"]
    assert [len(lesson.exercises) for lesson in part_of(lessons(), ["cut"])] == [1]
    with pytest.raises(ValueError, match="did you mean 'lora_count'"):
        part_of(lessons(), ["lora_coun"])


def test_what_is_not_handed_in_is_empty_and_what_does_not_parse_is_zero(graded):
    table = {row[0]: row[1:] for row in rows(graded[1][0])}
    assert table["Byron, Ada"][:2] == ["1", ""]
    assert table["Cy"][:2] == ["0", ""]
    assert table["Dan"][:2] == ["", ""]
    assert table["Dan"][-2] == ""
    assert "SyntaxError" in graded[0].feedback("Cy")
    assert "Not handed in" in graded[0].feedback("Dan")


def test_the_gradebook_is_the_roster_and_a_column(graded):
    (path,) = [path for path in graded[1] if path.stem.endswith("gradebook")]
    head, *body = rows(path)
    assert head == ["Student", "ID", "Email", "LoRA (99)"]
    assert body[0] == ["Byron, Ada", "17", "ada@x.org", "1"]
    assert [row[-1] for row in body] == ["1", "0", "0", "", "", "", "1"]


def test_what_came_and_cannot_be_read_is_listed(graded):
    notes = [note for note in graded[0].table.notes if note.startswith(("Eve", "Gil", "jo"))]
    assert notes == [
        "Eve, letter.docx: letter.docx is neither a notebook nor a script",
        "Eve, work.zip: work.zip is neither a notebook nor a script (an archive)",
        "Gil, Gil.py: Gil.py: not text in UTF-8, UTF-16 or Windows-1252",
        "jo, jo.zip: jo.zip is neither a notebook nor a script (an archive)",
    ]
    assert "work.zip" in graded[0].feedback("Eve")


def test_the_laws_that_a_class_broke_and_how(graded):
    (path,) = [path for path in graded[1] if path.stem.endswith("laws")]
    head, first, *others = rows(path)
    assert head == ["exercise", "law", "known mistake", "students"]
    assert first == [
        "lora_forward",
        exercise("lora_forward").laws[0].name,
        "without alpha / r",
        "2",
    ]
    assert [row[-2:] for row in others] == [["", "1"]]
    assert broken_laws([]).records == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a line of headings"),
        ("name,id\nAda\n", "as many fields"),
        ("name\nAda,1\n", "as many fields"),
        ("name\nAda\nAda\n", "names 'Ada' twice"),
        ('name\n"Ada\n', "not a roster"),
    ],
)
def test_what_is_no_roster_is_refused(tmp_path, text, told):
    path = tmp_path / "roster.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        read_roster(path)


def test_what_names_a_mistake_leads_the_list_however_few_made_it():
    def lora_count(d, k, r):
        return 3 * d + k * r + 11

    unknown = check(lora_count)

    def lora_count(d, k, r):
        return d * k

    known = check(lora_count)
    assert not any(verdict.mistake for verdict in unknown.verdicts)
    assert any(verdict.mistake for verdict in known.verdicts)
    records = broken_laws([unknown] * 3 + [known]).records
    assert [bool(row["known mistake"]) for row in records] == [True, False]
    assert [row["students"] for row in records] == [1, 3]
