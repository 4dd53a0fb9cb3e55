"""Notebooks and scripts as students hand them in."""

import json
from itertools import product

import pytest

from lora_np.exercises import exercise, puzzle_lines, puzzle_script, puzzles
from lora_np.grading.submissions import cells_of, check_file, check_puzzles, defined_in
from tests.mutations import is_linear

RIGHT = "def lora_count(d, k, r):\n    return r * (d + k)\n"
WRONG = "def training_bytes(base, trained):\n    return 2 * base\n"


def notebook(*cells):
    code = [{"cell_type": "code", "source": source.splitlines(keepends=True)} for source in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": ["def f(x):"]}, *code]})


def test_a_script_is_cut_at_its_marks(tmp_path):
    path = tmp_path / "a.py"
    for first, second in [
        ("# %% [markdown]", "# %%"),
        ("#%%", "# In[ ]:"),
        ("# In[1]:", "# In[2]:"),
    ]:
        path.write_text(f"import numpy as np\n{first}\n# words\n\n{second}\n{RIGHT}")
        assert [cell.strip() for cell in cells_of(path)] == [
            "import numpy as np",
            "# words",
            RIGHT.strip(),
        ]


def test_lines_for_ipython_alone_are_left_out(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(notebook("%matplotlib inline\n!pip install x\nx = 5 % 3", RIGHT))
    assert cells_of(path) == ["\n\nx = 5 % 3", RIGHT]
    for line in ("files = !ls", "a, b = %sx ls", "np.linalg.svd?", "len??", "?len"):
        path.write_text(notebook(f"x = 1\n{line}\n{RIGHT}"))
        assert cells_of(path) == [f"x = 1\n\n{RIGHT}"]
    kept = "x = y != 2\nif x: print('What?')\nz = 5 % 3  # why?"
    path.write_text(notebook(kept))
    assert cells_of(path) == [kept]


def test_a_file_from_windows(tmp_path):
    path = tmp_path / "a.py"
    path.write_bytes(b"\xef\xbb\xbf" + RIGHT.replace("\n", "\r\n").encode() + b"# caf\xe9\r\n")
    assert check_file(path).passed


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]
ENDINGS = ["\n", "\r\n", "\r"]


def test_every_encoding_and_end_of_line_is_read(tmp_path):
    text = f"# café\n{RIGHT}"
    script, book = tmp_path / "a.py", tmp_path / "a.ipynb"
    for encoding, ending in product(ENCODINGS, ENDINGS):
        script.write_bytes(text.replace("\n", ending).encode(encoding))
        book.write_bytes(notebook(text).replace("\n", ending).encode(encoding))
        assert cells_of(script) == cells_of(book) == [text], (encoding, ending)


def test_puzzles_in_every_encoding_keep_what_is_solved(tmp_path):
    script = puzzle_script()
    solved = {one.name: one for one in puzzles()[:2] + puzzles()[3:4]}
    for one in solved.values():
        title, blank, rest = script.partition(f"# Puzzle {one.number}:")
        script = title + blank + rest.replace(one.blank, one.right, 1)
    path = tmp_path / "puzzles.py"
    for encoding, ending in product(ENCODINGS, ENDINGS):
        path.write_bytes(script.replace("\n", ending).encode(encoding, "replace"))
        lines = puzzle_lines("\n".join(cells_of(path)))
        for name, one in solved.items():
            assert lines[name] == one.right, (encoding, ending)
        if (encoding, ending) in [("utf-16", "\r"), ("cp1252", "\r\n")]:
            found = check_puzzles(path)
            assert {name: outcome.passed for name, (_, outcome) in found.items()} == dict.fromkeys(
                solved, True
            )


def test_tabs_indent_puzzles_and_answers_even_below_spaces_of_ours(tmp_path):
    path = tmp_path / "puzzles.py"
    lines = {one.name: one.right for one in puzzles()}
    path.write_text(
        "".join(f"\t# Puzzle {one.number}: {one.title}\n\t{one.right} \t\n" for one in puzzles())
    )
    assert puzzle_lines(path.read_text()) == lines
    path.write_text(puzzle_script().replace("    ", "\t"))
    assert len(puzzle_lines(path.read_text())) == len(lines)
    head, _, body = RIGHT.partition(":\n")
    for doc in ('\t"""Mine."""\n', '    """Yours."""\n'):
        script = f"{head}:\n{doc}" + body.replace("    ", "\t")
        (tmp_path / "a.py").write_text(script)
        assert check_file(tmp_path / "a.py").passed


def test_a_blank_line_below_a_title_is_no_answer():
    assert puzzle_lines("# Puzzle 1: Count\n\nparameters = r") == {"parameters": ""}


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.ipynb", "{", "is neither a notebook nor a script"),
    ("a.ipynb", "[1, 2]", "is neither a notebook nor a script"),
    ("a.ipynb", '{"cells": [{"cell_type": "code", "source": 5}]}', "is neither a notebook nor a script"),
    ("a.ipynb", "[" * 100_000, "is neither a notebook nor a script"),
    ("a.txt", RIGHT, "must be a .py or .ipynb file"),
    ("a.py", "def f(x):\n    return x\n", "defines no function that an exercise asks for"),
])  # fmt: skip
def test_what_is_no_submission(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        check_file(path)


def test_empty_cells_cost_nothing_and_too_many_with_code_are_refused(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("# %%\n" * 1_500_000 + RIGHT)
    cells = cells_of(path)
    assert (len(cells), [cell for cell in cells if cell]) == (1_500_001, [f"\n{RIGHT}"])
    path.write_text("# %%\n0\n" * 1_001)
    with pytest.raises(ValueError, match=r"a\.py has 1,001 cells of code, and may have 1,000"):
        cells_of(path)


def test_a_file_is_read_in_time_that_grows_with_its_size(tmp_path):
    def written(size):
        path = tmp_path / f"{size}.py"
        path.write_text("# %%\n" * (size // 10) + "x = '" + "y" * (size // 2) + "'\n")
        return path

    linear, seconds = is_linear(written, cells_of, 8_000_000)
    assert linear, seconds


def test_what_is_not_handed_in_and_what_could_not_be_run_are_told_apart(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(f"{RIGHT}\n# %%\nx = (\n{WRONG}\n# %%\n1 / 0\ndef cut(M, r):\n    return M\n")
    names = ("lora_count", "training_bytes", "cut", "affordable_rank")
    outcomes = check_file(path, [exercise(name) for name in names]).outcomes
    assert outcomes["lora_count"].passed
    assert outcomes["training_bytes"].message.startswith(
        "Its cell could not be run: cell 2: SyntaxError:"
    )
    assert outcomes["cut"].message.startswith(
        "Its cell could not be run: cell 3: ZeroDivisionError:"
    )
    assert outcomes["affordable_rank"].message == "Not handed in"


def test_a_report_says_points_and_laws(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(f"{WRONG}\n# %%\n{RIGHT}\n# %%\n1 / 0\n")
    report = check_file(path)
    assert not report.passed
    assert list(report.outcomes) == ["lora_count", "training_bytes"]
    text = repr(report)
    assert "lora_count: 1 of 1 point. All laws hold." in text
    assert "A trainable parameter takes itself, its gradient and two moments" in text
    assert "cell 3: ZeroDivisionError" in text
    assert text.endswith("2 of 3 points.")
    assert report.to_dict()["exercises"][0] == {
        "exercise": "lora_count", "passed": True, "points": 1, "of": 1,
        "laws": [{"law": "entries", "passed": True, "message": "", "call": "", "mistake": ""}],
    }  # fmt: skip


def test_only_some_exercises(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(f"{RIGHT}\n{WRONG}")
    assert check_file(path, [exercise("lora_count")]).passed


def test_an_exercise_that_is_not_there(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(RIGHT)
    report = check_file(path, [exercise("lora_count"), exercise("cut")])
    assert report.outcomes["lora_count"].passed
    assert report.outcomes["cut"].message == "Not handed in"


def test_the_check_cells_of_a_notebook_cost_nothing(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(
        notebook(
            "from lora_np import exercises",
            RIGHT,
            "exercises.check(lora_count)",
            "exercises.check(3)",
        )
    )
    assert repr(check_file(path)).splitlines() == [
        "lora_count: 1 of 1 point. All laws hold.",
        "How it can be done: lora-np exercises solution NAME",
        "1 of 1 point.",
    ]


def test_definitions_in_the_order_of_the_course():
    found = defined_in(
        [WRONG, "    def cut(M, r):\n", RIGHT.replace(" ", "  ", 1), "def helper(x):\n"]
    )
    assert [one.name for one in found] == ["lora_count", "training_bytes"]
