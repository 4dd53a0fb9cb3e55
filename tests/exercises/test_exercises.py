"""Every exercise: right answers pass, wrong ones break the law that they should."""

import numpy as np
import pytest

from lora_np import exercises
from lora_np.exercises import (
    HEADER,
    QUESTIONS,
    Namespace,
    check,
    exercise,
    judge,
    lessons,
    other_questions,
    overview,
)
from lora_np.exercises.asking import here
from lora_np.grading import repository, solutions

ALL = [(lesson, one) for lesson in lessons() for one in lesson.exercises]
EXERCISES = [pytest.param(lesson, one, id=one.name) for lesson, one in ALL]
MISTAKES = [
    pytest.param(one, mistake, id=f"{one.name}-{mistake.name}")
    for lesson, one in ALL
    for mistake in solutions(lesson)[one.name].mistakes
]


def function_of(source, name):
    namespace = Namespace()
    assert namespace.run(HEADER + source, "cell 1") == ""
    return namespace.names[name]


def outcome(one, source, questions):
    return judge(one, here(function_of(source, one.name)), questions)


def test_ten_lessons_with_three_to_five_exercises_each():
    assert [lesson.number for lesson in lessons()] == list(range(1, 11))
    assert all(3 <= len(lesson.exercises) <= 5 for lesson in lessons())
    assert len({one.name for _, one in ALL}) == len(ALL) >= 40


@pytest.mark.parametrize(("lesson", "one"), EXERCISES)
def test_the_solution_passes_under_other_questions(lesson, one):
    result = outcome(one, solutions(lesson)[one.name].source, [[77, i] for i in range(20)])
    assert result.passed, result


@pytest.mark.parametrize(("lesson", "one"), EXERCISES)
def test_the_stub_fails_and_says_why(lesson, one):
    result = outcome(one, one.stub, QUESTIONS)
    assert (result.points, result.passed) == (0, False)
    assert "is there a return?" in result.message


@pytest.mark.parametrize(("one", "mistake"), MISTAKES)
@pytest.mark.parametrize("questions", [QUESTIONS, other_questions(20_000)], ids=["student", "grader"])
def test_each_mistake_breaks_its_law(one, mistake, questions):
    result = outcome(one, mistake.source, questions)
    assert not result.passed
    assert mistake.breaks in result.message


@pytest.mark.parametrize(("lesson", "one"), EXERCISES)
def test_an_exercise_is_complete(lesson, one):
    assert one.stub.endswith("    ...\n")
    assert one.points in (1, 2, 3)
    assert all(one.hints)
    assert len(solutions(lesson)[one.name].mistakes) >= 3


NONSENSE = [
    None, "text", [], (), {}, [[1], [1, 2]], np.array([1 + 2j]), np.nan, 10**400, -1, object(), len, (None, None),
    np.zeros((0, 3)), np.zeros((3, 3), dtype=object), {"a": 1}, np.ones(100_000), [[["a"]]], (10**400,) * 2, [{}],
    np.array("abc"), np.array(["2020-01-01"], "M8[D]"), float("inf"), (1, 2), (1, 2, 3), {1, 2}, range(3), True,
]  # fmt: skip


@pytest.mark.parametrize(("lesson", "one"), EXERCISES)
def test_nonsense_breaks_a_law_and_never_the_check(lesson, one):
    for thing in NONSENSE:
        result = judge(one, here(lambda *args, thing=thing: thing), QUESTIONS[:1])
        assert not result.passed, thing
        assert not result.message.startswith("The answer has the type that the exercise asks for"), (
            thing,
            result,
        )


@pytest.mark.parametrize(
    ("one", "function"),
    [pytest.param(one, name, id=f"{one.name}-{name}") for _, one in ALL for name in one.forbids],
)
def test_a_forbidden_function_is_refused_under_another_name_too(one, function):
    module, _, name = function.rpartition(".")
    for source in (
        f"import {module}\ndef {one.name}(*args):\n    return {function}(*args)\n",
        f"from {module} import {name} as mine\ndef {one.name}(*args):\n    return mine(*args)\n",
    ):
        result = outcome(one, source, QUESTIONS[:1])
        assert (
            result.message
            == f"The exercise forbids a function: {function} is not allowed in this exercise: write it yourself"
        )


def test_what_is_forbidden_comes_back():
    check(
        function_of(
            "def rank_by_elimination(M):\n    return np.linalg.matrix_rank(M)\n", "rank_by_elimination"
        )
    )
    assert np.linalg.matrix_rank(np.eye(2)) == 2


RIGHT = {
    "loops and lists": (
        "lora_count",
        "def lora_count(d, k, r):\n    return sum(1 for _ in range(r) for _ in range(d + k))\n",
    ),
    "other signs in an SVD": (
        "svd_by_eigenvectors",
        "def svd_by_eigenvectors(M):\n    values, V = np.linalg.eigh(M.T @ M)\n"
        "    s, V = np.sqrt(values[::-1]), -V[:, ::-1]\n    return M @ V / s, s, V.T\n",
    ),
    "QR with positive diagonal": (
        "olora_start",
        "def olora_start(W0, r):\n    Q, R = np.linalg.qr(W0)\n    signs = np.sign(np.diag(R))\n"
        "    B, A = (Q * signs[:len(R)])[:, :r], (signs[:, None] * R)[:r]\n    return W0 - B @ A, B, A\n",
    ),
    "another basis": (
        "top_directions",
        "def top_directions(M, r):\n    Q = np.random.default_rng(5).normal(size=(len(M), r))\n"
        "    for _ in range(40):\n        Q = np.linalg.qr(M @ (M.T @ Q))[0]\n"
        "    return Q @ np.linalg.qr(np.random.default_rng(6).normal(size=(r, r)))[0]\n",
    ),
    "B random, A zero": (
        "lora_start",
        "def lora_start(d, k, r, rng):\n"
        "    return np.zeros((r, k)), np.random.default_rng(rng).normal(size=(d, r))\n",
    ),
    "gradients by hand": (
        "lora_gradients",
        "def lora_gradients(x, y, W0, A, B, alpha):\n    s = alpha / len(A)\n"
        "    e = 2 * (x @ (W0 + s * B @ A).T - y) / y.size\n    return s * B.T @ e.T @ x, s * e.T @ x @ A.T\n",
    ),
    "a loop of one's own": (
        "train_lora",
        "def train_lora(x, y, W0, r):\n    rng = np.random.default_rng(0)\n"
        "    A, B = rng.normal(size=(r, x.shape[1])) / 2, np.zeros((y.shape[1], r))\n"
        "    for _ in range(4000):\n        e = 2 * (x @ (W0 + B @ A).T - y) / y.size\n"
        "        A, B = A - 0.2 * B.T @ e.T @ x, B - 0.2 * e.T @ x @ A.T\n    return B, A\n",
    ),
    "an unbalanced resize": (
        "resize_adapter",
        "def resize_adapter(B, A, r):\n    U, s, Vh = np.linalg.svd(B @ A)\n    return U[:, :r], s[:r, None] * Vh[:r]\n",
    ),
    "a tighter limit for noise": (
        "noisy_rank",
        "def noisy_rank(M, sigma):\n    s = np.linalg.svdvals(M)\n"
        "    return int((s > 1.5 * sigma * sum(n ** 0.5 for n in M.shape)).sum())\n",
    ),
    "lists in place of arrays": (
        "unbroadcast",
        "def unbroadcast(g, shape):\n    result = np.zeros(shape)\n"
        "    view = np.broadcast_to(np.arange(result.size).reshape(shape), g.shape)\n"
        "    for place in np.ndindex(g.shape):\n        result.flat[view[place]] += g[place]\n    return result.tolist()\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", RIGHT)
def test_every_right_answer_passes(way):
    name, source = RIGHT[way]
    result = outcome(exercise(name), source, [*QUESTIONS, *other_questions(3)])
    assert result.passed, result


def test_an_outcome_shows_points_law_and_call():
    def lora_count(d, k, r):
        return d * k * r

    result = exercises.check(lora_count)
    assert repr(result).splitlines()[0] == "lora_count: 0 of 1 point"
    assert "B is d x r and A is r x k: the count must be" in repr(result)
    assert "in lora_count(d = " in repr(result)
    with pytest.raises(exercises.LawBroken, match="B is d x r and A is r x k"):
        result.require()


def test_a_law_is_shown_without_a_traceback():
    error = exercises.LawBroken("Ranks add up", "got 3")
    assert error._render_traceback_() == ["Ranks add up: got 3"]


def test_rng_asks_other_questions():
    asked = []

    def lora_count(d, k, r):
        asked.append((d, k, r))
        return r * (d + k)

    assert exercises.check(lora_count).passed
    assert exercises.check(lora_count, rng=1).passed
    assert len(set(asked)) == 2 * len(QUESTIONS)


def test_an_argument_that_is_changed_is_named_and_is_a_copy():
    seen = []

    def rank_one_parts(B, A):
        seen.append(B)
        A += 1
        return np.zeros(3)

    assert "your function has changed A" in exercises.check(rank_one_parts).message


def test_check_wants_a_function_that_an_exercise_knows():
    with pytest.raises(ValueError, match="did you mean 'rank_by_elimination'"):
        exercises.check(function_of("def rank_by_eliminaton(M):\n    return 0\n", "rank_by_eliminaton"))
    with pytest.raises(TypeError, match="check takes a function, got int"):
        exercises.check(3)


def test_lessons_by_number():
    assert [lesson.slug for lesson in lessons([2])] == ["factor-a-matrix"]
    with pytest.raises(ValueError, match="lesson must be between 1 and 10, got 11"):
        lessons([11])


def test_the_overview_counts():
    assert len(overview().table.rows) == len(ALL)
    assert overview([1]).table.notes == ("5 exercises, 9 points.",)


def test_a_checkout_is_needed_for_solutions(monkeypatch, tmp_path):
    monkeypatch.setattr(repository, "FOLDER", tmp_path)
    solutions.cache_clear()
    with pytest.raises(ValueError, match="solutions are in the repository"):
        solutions(lessons()[0])
    solutions.cache_clear()
