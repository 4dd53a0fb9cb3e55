"""Fifteen lines of mini.py: right ones pass, whatever their form, and each change of one is refused."""

import ast
import inspect
import re
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from lora_np import mini
from lora_np.exercises import (
    BLANK,
    Outcome,
    blanks,
    judge,
    other_seeds,
    puzzle,
    puzzle_lines,
    puzzle_script,
    puzzles,
    run_cell,
)
from lora_np.exercises.blanks import TITLE
from lora_np.exercises.testing import SEEDS, local_caller
from tests.drawing import FULL, every, few
from tests.exercises.mutants import mutants

# BLAS sometimes raises this flag for finite matrices of odd shapes; a learner sees no warning
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")

ROOT = Path(__file__).parents[2]
TABLE = tomllib.loads((Path(__file__).parent / "answers" / "puzzles.toml").read_text("utf-8"))
NAMES = [one.name for one in puzzles()]
LINES = [(one.name, line) for one in puzzles() for line in [one.right, *TABLE["right"][one.name]]]
MISTAKES = [(one.name, mistake) for one in puzzles() for mistake in one.mistakes]
DRAWS = 12 if FULL else 1


def outcome(name, line, seeds=SEEDS, **settings):
    one, names = puzzle(name), {}
    problem = run_cell(one.cell(line), "cell 0", names)
    if problem:
        return Outcome.failed(one, problem)
    return judge(one, local_caller(names[name]), seeds, **settings)


def changed(line):
    """Mutants of a line that stand alone, or in a function."""
    head = "def line():\n    " if line.startswith("return") else ""
    for mutant in mutants(head + line):
        yield mutant.removeprefix("def line():\n").strip()


def test_there_are_fifteen_with_hints_and_mistakes():
    assert len(NAMES) == 15
    assert puzzle_lines(puzzle_script()).keys() == set(NAMES)
    for one in puzzles():
        assert BLANK in one.blank
        assert BLANK in one.shown
        assert len(one.hints) == 3
        assert one.mistakes


@every(("name", "line"), few(LINES, 5))
def test_a_right_line_passes_in_any_form(name, line):
    for seed in range(DRAWS):
        result = outcome(name, line, other_seeds(seed), smallest=False)
        assert result.passed, (name, line, result)


WRONG = [
    ("closest", "return U[:, :r] * s[:r], Vh[: r**2]"),
    ("product_gradients", "return Tensor(a @ b**2, (self, lambda g: g @ b.T), (other, lambda g: a.T @ g))"),
    ("sum_gradients", "return Tensor(a + b**2, (self, lambda g: g), (other, lambda g: g))"),
    ("forward", "return x @ self.W0.T + x @ self.A.value.T @ self.B.T * (self.alpha / self.r)"),
    ("forward", "return x @ self.W0.T + x @ self.A.T @ self.B.value.T * (self.alpha / self.r)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "line"), WRONG)
def test_a_line_whose_value_or_gradient_is_wrong_is_refused(name, line):
    for seeds in (SEEDS, *map(other_seeds, range(DRAWS))):
        assert not outcome(name, line, seeds, smallest=False).passed


TRIES = tomllib.loads((ROOT / "tests" / "course" / "first_tries.toml").read_text("utf-8"))["try"]


# Their authors saw only the page; in the file `r` and `layer` have values, so the lines are right.
RIGHT_IN_THE_FILE = {"merged = W0 + alpha / r * B @ A", "merged = W0 + layer.delta()"}
OURS = (
    "Tensor object", "Size", "builtins", "Slip", "KeyError", "JSON", "unpack", "<cell", "lora_np", "object at 0x",
    "attribute 'sum'", "NoneType", "a second time", "(n?,k)", "...",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_first_tries_are_judged_by_what_stands_in_them(monkeypatch):
    """No right line is refused, each other one is told what is wrong with it, and all end."""
    monkeypatch.setattr(blanks, "SECONDS", 0.5)  # of the processor, for a line that does not end
    for one in few(TRIES, 9):
        line, began = one["line"], time.process_time()
        with np.errstate(all="ignore"):
            scene = puzzle(one["puzzle"]).solve(line)
        assert time.process_time() - began < 4, one
        assert scene.passed is (one["kind"] == "right" or line in RIGHT_IN_THE_FILE), one
        if not scene.passed and line:
            quoted = re.findall("`([^`]+)`", scene.said.partition("\n")[0])
            assert any(part.strip() and part in line for part in quoted), scene
            assert not [word for word in OURS if word in scene.said.partition("\n")[0]], scene


@pytest.mark.parametrize("name", ["parameters", "break_even", "merge", "truncate"])
def test_what_the_file_knows_at_its_end_the_puzzle_knows(name):
    """Each name that the file gives a value before the line, and its imports."""
    one = puzzle(name)
    nodes = ast.parse(inspect.getsource(mini)).body[-1].body
    place = next(i for i, node in enumerate(nodes) if one.right in ast.unparse(node))
    before = nodes[:place]
    if isinstance(loop := nodes[place], ast.For):
        inside = [one.right in ast.unparse(node) for node in loop.body].index(True)
        before += [loop.target, *loop.body[:inside]]
    inner = [one for node in before for one in ast.walk(node)]
    bound = {
        n.id
        for c in inner
        if isinstance(c, ast.comprehension)
        for n in ast.walk(c.target)
        if isinstance(n, ast.Name)
    }
    names = {
        n.id for n in inner if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    } - bound
    assert {"W0", "dW", "few", "rng"} <= names
    for known in sorted(names):
        said = one.solve(one.blank.replace(BLANK, f"[{known}] and 0", 1)).said
        assert "is not defined" not in said, known
        assert "no value" not in said, known


@pytest.mark.filterwarnings("ignore")
def test_every_change_of_a_line_in_one_place_is_refused():
    alive, refused = set(), 0
    for one in puzzles():
        for line in changed(one.right):
            with np.errstate(all="ignore"):
                if outcome(one.name, line, smallest=False).passed:
                    alive.add(line)
                else:
                    refused += 1
    assert alive == set(TABLE["same"])
    assert refused > 60


def test_most_known_mistakes_are_named_and_none_is_called_another():
    """What raises an error on nearly all inputs has too few values to prove a name."""
    asked, named = few(MISTAKES, 4), 0
    for name, mistake in asked:
        names = {}
        assert run_cell(mistake.code, "cell 0", names) == ""
        with np.errstate(all="ignore"):
            result = judge(puzzle(name), local_caller(names[name]), SEEDS)
        assert result.broken[0].mistake in (mistake.name, ""), (name, mistake.name)
        named += bool(result.broken[0].mistake)
    assert named >= 0.75 * len(asked)


@every("name", NAMES)
def test_solving_one_draws_and_says_something(name):
    one = puzzle(name)
    scene = one.solve(re.findall("`([^`]+)`", one.hints[2])[-1])
    assert scene.passed
    assert 20 < len(scene.said) < 300
    assert "Error" not in scene.said + one.before().said
    assert one.diagram or one.before().panels
    for drawn in (one.before(), scene):
        assert "nan" not in str(drawn)


def test_a_wrong_line_is_told_what_is_wrong():
    one = puzzle("parameters")
    told = one.solve("parameters = d * k").said
    assert "the count must be" in told
    assert "Hint: Count the cells of B" in told
    assert "For example with\nd = 1" in told
    assert one.solve("parameters = r (d + k)").said.startswith("`r (d + k)` raises TypeError")
    assert "Write something" in one.solve(one.blank).said


def test_a_line_that_is_no_python_is_told_by_itself():
    """A reader sees one line of the file: a message that names another one would mislead."""
    for one in puzzles():
        for end in ("(", "[", ")", "(]"):
            said = one.solve(one.blank.replace(BLANK, end)).said
            assert said.startswith("Python cannot read `"), end
            assert "line " not in said, said
        assert "on line 1" in one.solve("if x:").said


def test_few_sentences_are_written_for_a_puzzle():
    for one in puzzles():
        assert 1 <= len(one.says) + one.stub.count("assert ") <= 2, one.name


def test_a_script_with_all_lines_is_mini_itself():
    script = puzzle_script()
    for one in puzzles():
        assert puzzle_lines(script)[one.name].startswith(one.blank)
        head = re.escape(TITLE.format(one.number, one.title))
        script, count = re.subn(rf"{head}\n( *){re.escape(one.blank)}", rf"{one.right}", script)
        assert count == 1
    assert script == (ROOT / "lora_np" / "mini.py").read_text("utf-8")
