"""Every exercise: right answers pass in both precisions, wrong ones break the law that they
should.
"""

import ast
import contextlib
import doctest
import inspect
import re
import time
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lora_np import exercises
from lora_np.exercises import (
    HEADER,
    SEEDS,
    exercise,
    judge,
    lessons,
    other_seeds,
    run_cell,
    solution,
)
from lora_np.exercises.catalogue import functions
from lora_np.exercises.inputs import Draw, Rejected
from lora_np.exercises.testing import Answer, local_caller
from tests.attempts import FOLDER, Attempt, attempts, attempts_in
from tests.drawing import FULL, SHARE, every, few
from tests.exercises.gauges import VARIANTS, handed_in
from tests.exercises.mutants import mutants
from tests.exercises.truth import wrong_share

# BLAS sometimes raises this flag for finite matrices of odd shapes; a learner sees no warning
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")

DRAWS = range(12) if FULL else range(1)
ALL = [one for lesson in lessons() for one in lesson.exercises]
PROJECT = {one.name for one in lessons()[-1].exercises}
EXERCISES = [pytest.param(one, id=one.name) for one in ALL]


def answers_to_the_project():
    """Of ``build_a_lora.toml``: each as a change of the solution."""
    for name, several in tomllib.loads((FOLDER / "build_a_lora.toml").read_text("utf-8")).items():
        for told, one in several.items():
            code = solution(name).code
            for old, new in zip(one["put"][::2], one["put"][1::2], strict=True):
                assert old in code, (name, told)
                code = code.replace(old, new) if old else new + code
            yield Attempt(name, told, code, one.get("breaks", ""))


ATTEMPTS = [*attempts(), *answers_to_the_project()]
MISTAKES = [one for one in ATTEMPTS if one.breaks]
RIGHT = [one for one in ATTEMPTS if not one.breaks]
# Written from the statements alone; these two do what their statements rule out.
RULED_OUT = {
    "M's own first columns, and their coefficients by least squares",  # the terms of Q R are asked for
    "the part that least squares leaves over, with the other sign",  # lstsq is not allowed
}
READERS = [
    one
    for one in attempts_in(Path(__file__).with_name("right_answers.py"))
    if one.name not in RULED_OUT
]
KNOWN = [(one, wrong) for one in ALL for wrong in one.mistakes]


def name_of(one):
    return f"{one.exercise}-{one.name}"


def function_of(source, name):
    names = {"__name__": "submission"}
    known = {one.name: one for one in ALL}
    needs = [solution(step).code for step in (known[name].needs if name in known else ())]
    assert run_cell("\n\n".join([HEADER, *needs, source]), "cell 1", names) == ""
    return names[name]


def outcome(one, source, seeds, **settings):
    return judge(one, local_caller(function_of(source, one.name)), seeds, **settings)


def in_float32(function):
    """The same function for somebody who computes in float32 throughout."""

    def low(value):
        if isinstance(value, (tuple, list, dict)):
            inside = value.items() if isinstance(value, dict) else value
            return type(value)(map(low, inside))
        single = (
            isinstance(value, (float, np.ndarray, np.floating))
            and np.asarray(value).dtype == np.float64
        )
        return np.float32(value) if single else value

    def coarse(*arguments):
        given = [low(a) if isinstance(a, (np.ndarray, tuple, list, dict)) else a for a in arguments]
        return low(function(*given))

    return coarse


WITHOUT = {
    "learn-from-a-reward",
    "turn-chats-into-a-served-model",
}  # their questions at the end are what to try


def test_lessons_have_two_to_five_exercises_each_and_the_project_six_steps():
    assert [lesson.number for lesson in lessons()] == list(range(len(lessons())))
    *others, project = lessons()
    assert {lesson.slug for lesson in others if not lesson.exercises} == WITHOUT
    assert all(2 <= len(lesson.exercises) <= 5 for lesson in others if lesson.exercises)
    assert len(project.exercises) == 6
    assert len({one.name for one in ALL}) == len(ALL) >= 40


@pytest.mark.parametrize(
    ("precision", "one"),
    [
        *(("float64", one) for one in ALL),
        *(("float32", one) for one in few(ALL, 3)),
    ],
    ids=lambda part: getattr(part, "name", part),
)
def test_the_solution_passes(one, precision):
    function = function_of(solution(one.name).code, one.name)
    if precision == "float32" and one.name != "slope":
        function = in_float32(function)
    for seed in DRAWS:
        began = time.process_time()
        result = judge(one, local_caller(function), other_seeds(seed))
        assert result.passed, result
        assert time.process_time() - began < 20


@pytest.mark.filterwarnings("ignore")
@every("one", few(READERS, 20))
def test_a_right_answer_written_from_the_statement_passes(one):
    function = function_of("import lora_np\n" + one.source, one.exercise)
    for seeds in (SEEDS, *map(other_seeds, DRAWS)):
        with np.errstate(all="ignore"):
            result = judge(exercise(one.exercise), local_caller(function), seeds)
        assert result.passed, (one.name, result)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@every("one", few(RIGHT, 32))
def test_another_right_answer_passes(one):
    function, asked = function_of(one.source, one.exercise), exercise(one.exercise)
    for seed in DRAWS:
        for coarse in {False, asked.name != "slope"}:
            result = judge(
                asked, local_caller(in_float32(function) if coarse else function), other_seeds(seed)
            )
            assert result.passed, result


def test_every_exercise_has_six_wrong_answers_and_four_right_ones():
    counts = Counter((one.exercise, bool(one.breaks)) for one in ATTEMPTS)
    assert min(counts[one.name, True] for one in ALL) >= 6
    assert min(counts[one.name, False] for one in ALL) >= 4


def test_a_check_names_the_known_mistake():
    """Each known mistake fails, and is called by its name; other code that makes it gets the same
    name.
    """
    told, asked = 0, few(KNOWN, 2 * SHARE)
    for one, wrong in asked:
        result = judge(one, local_caller(function_of(wrong.code, one.name)), SEEDS)
        assert not result.passed, (one.name, wrong.name)
        told += any(verdict.mistake == wrong.name for verdict in result.verdicts)
    assert told >= 2 / 3 * len(asked)


@every(("name", "wrong", "form"), few(VARIANTS, 6))
def test_a_known_mistake_is_named_in_other_signs_and_another_split(name, wrong, form):
    one = exercise(name)
    (mistake,) = (mistake for mistake in one.mistakes if mistake.name == wrong)
    result = judge(one, local_caller(handed_in(mistake, name, form)), SEEDS)
    assert wrong in [verdict.mistake for verdict in result.verdicts]


@pytest.mark.filterwarnings("ignore")
def test_the_name_of_a_mutant_is_true():
    """Of those that the rules for mutants make of the solutions, on inputs that no check draws."""
    rng, refused, named = np.random.default_rng(11), 0, 0
    for one in ALL if FULL else ALL[::15]:
        for mutant in rng.permutation(mutants(solution(one.name).code))[: 6 if FULL else 3]:
            with contextlib.suppress(AssertionError), np.errstate(all="ignore"):
                function = function_of(str(mutant), one.name)
                result = judge(one, local_caller(function), SEEDS)
                refused += not result.passed
                for law, verdict in zip(one.laws, result.verdicts, strict=True):
                    named += bool(verdict.mistake)
                    count = 20 if one.cases < 5 else 1_000 if FULL else 60
                    if not verdict.mistake:
                        continue
                    # where two singular values nearly meet, rounding may decide
                    if wrong_share(one, law, function, verdict.mistake, count)[0] >= 0.01:
                        pytest.fail(f"{one.name}: {verdict.mistake} is not true of\n{mutant}")
    assert refused > named > 0


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (lambda d, k, r: 2 * r * (d + k), "twice what is right"),
        (lambda d, k, r: -r * (d + k), "with the opposite sign"),
        (lambda d, k, r: 3 * r + r * k, "without using d"),
        (lambda d, k, r: [r * (d + k)], ""),
        (lambda d, k, r: r.shape, ""),
        (lambda d, k, r: r * (d + k) + (d == 2) * k**2, ""),
    ],
)
def test_an_answer_that_is_no_known_mistake_is_told_what_it_is(answer, name):
    (verdict,) = judge(exercise("lora_count"), local_caller(answer), SEEDS).verdicts
    assert verdict.mistake == name


def test_a_named_mistake_comes_with_a_hint():
    def lora_forward(x, W0, A, B, alpha):
        return x @ W0.T + (x @ A.T) @ B.T

    (verdict,) = exercises.check(lora_forward).verdicts
    assert verdict.mistake == "without alpha / r"
    hint = exercise("lora_forward").hints[2]
    assert f"A known mistake gives this answer: without alpha / r. Hint: {hint}" in verdict.message


def test_an_answer_that_no_known_mistake_gives_gets_no_name():
    def lora_forward(x, W0, A, B, alpha):
        return x @ W0.T + 7.25 * alpha

    assert "comes out" not in exercises.check(lora_forward).message


@every("one", EXERCISES)
def test_a_known_mistake_is_another_program_than_the_solution(one):
    assert one.name == "train_lora" or len(one.mistakes) >= 6
    codes = {
        ast.unparse(ast.parse(code))
        for code in (one.answer, *(wrong.code for wrong in one.mistakes))
    }
    assert len(codes) == 1 + len(one.mistakes)


def test_an_answer_that_passes_all_laws_and_not_the_example_is_told():
    def lora_count(d, k, r):
        return 6 if (d, k, r) == (3, 2, 1) else r * (d + k)

    result = exercises.check(lora_count)
    assert not result.passed
    assert repr(result).splitlines()[1:] == [
        "  The statement's example holds: lora_count(3, 2, 1) must give 5, got 6",
        "  lora_count(3, 2, 1)",
    ]


@every("one", EXERCISES)
def test_the_example_is_right(one):
    names = {
        "np": np,
        "lnp": __import__("lora_np"),
        one.name: function_of(solution(one.name).code, one.name),
    }
    text = "\n".join(one.statement.split("```")[1::2])
    test = doctest.DocTestParser().get_doctest(text, names, one.name, None, 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


@every("one", EXERCISES)
def test_the_stub_fails_and_says_why(one):
    result = outcome(one, one.stub, SEEDS[:1])
    assert (result.points, result.passed) == (0, False)
    if one.name.startswith("project_"):  # calls what is to be written
        said = ("without an error", "asked for", "is there a return?")
        assert any(words in result.message for words in said)
    else:
        assert repr(result).splitlines()[1:] == ["  Not written yet"]


def test_an_answer_that_is_no_plain_function_is_called():
    source = (
        "class Count:\n    @property\n    def __code__(self): raise SystemExit\n"
        "    def __call__(self, d, k, r): return r * (d + k)\nlora_count = Count()\n"
    )
    assert outcome(exercise("lora_count"), source, SEEDS).passed


def test_a_function_that_forgets_to_return_is_told_so():
    result = outcome(
        exercise("lora_count"), "def lora_count(d, k, r):\n    count = r * (d + k)\n", SEEDS
    )
    assert "is there a return?" in result.message


LONG = {  # right on everything smaller
    "four times the root of the longer side", "four times the root of the shorter side", "blocks of equal size",
    "eigenvectors as rows", "all entries above sigma", "d + k without roots",
}  # fmt: skip
LIMITS = ("bytes of memory", "steps of Python", "standard deviation", "must be random")
SAME_ANSWER = ("not allowed", "has changed", *LIMITS, "same start", "another start")


def pasted(call, source, name):
    """What the code of a counterexample gives, with this function for the answer; and its
    arrays.
    """
    names = {"np": np}
    *lines, last = call.splitlines()
    exec("\n".join(lines), names)
    arrays = [value for value in names.values() if isinstance(value, np.ndarray)]
    try:
        with np.errstate(all="ignore"):
            result = eval(last, names | {name: function_of(source, name)})
    except Exception as error:
        result = type(error).__name__
    return repr(result), arrays


@pytest.mark.parametrize(
    ("one", "seeds"),
    [
        *(pytest.param(one, SEEDS, id=f"{name_of(one)}-student") for one in few(MISTAKES, 25)),
        *(
            pytest.param(one, other_seeds(20_000), id=f"{name_of(one)}-grader")
            for one in few(MISTAKES, 35)
        ),
    ],
)
def test_each_mistake_breaks_its_law_on_a_small_input(one, seeds):
    asked = exercise(one.exercise)
    result = outcome(asked, one.source, seeds)
    (verdict,) = [verdict for verdict in result.verdicts if verdict.law == one.breaks]
    assert not verdict.passed
    assert result.points < asked.points
    # What is shown is small and can be pasted, and there the mistake gives something else than the
    # solution.
    assert longest(asked, verdict) <= 200
    wrong, arrays = pasted(verdict.call, one.source, one.exercise)
    right, _ = pasted(verdict.call, solution(one.exercise).code, one.exercise)
    assert wrong != right or any(words in verdict.message for words in SAME_ANSWER), verdict
    small = all(n <= 3 for array in arrays for n in array.shape)
    assert small or one.name in LONG or any(words in verdict.message for words in LIMITS), (
        verdict.call
    )


def longest(asked, verdict):
    """The length of a counterexample, or of what is said of it without the name of the law."""
    said = verdict.message.partition("\nA known mistake")[0]
    names = [
        *(law.name for law in asked.laws),
        "The answer has the type that the exercise asks for",
    ]
    return max(len(verdict.call), len(said) - max(map(len, names)) - len(": "))


def failing(*arguments):
    raise ValueError("a long story " * 100)


WRONG = [lambda *given: np.arange(2000.0), lambda *given: "word " * 200, failing]


@pytest.mark.slow
@every(
    "one, wrong",
    [
        (one, wrong)
        for i, one in enumerate(few(ALL, 4))
        for wrong in WRONG[not FULL and i % 3 :][: 3 if FULL else 1]
    ],
)
def test_no_counterexample_is_longer_than_people_read(one, wrong):
    result = judge(one, local_caller(wrong), SEEDS)
    assert not result.passed
    assert max(longest(one, verdict) for verdict in result.broken) <= 200


@every("one", EXERCISES)
def test_an_exercise_is_complete(one):
    assert "..." in one.stub
    assert one.difficulty in (1, 2, 3)
    assert 2 <= one.minutes <= 60
    assert len(one.hints) == 3
    assert all(one.hints)
    assert all(law.points > 0 and law.name for law in one.laws)
    assert len(solution(one.name).partition("```")[0]) > 100
    assert (
        one.name in PROJECT
        or len([m for m in attempts() if m.exercise == one.name and m.breaks]) >= 3
    )
    stub, solved = (ast.parse(source).body[-1] for source in (one.stub, solution(one.name).code))
    assert ast.unparse(solved.args) == ast.unparse(stub.args)


def test_every_law_in_python_is_in_the_data():
    used = {f"{one.name}_{law.slug}" for one in ALL for law in one.laws}
    names = tuple(one.name + "_" for one in ALL)
    laws = {
        name
        for name, f in functions().items()
        if name.startswith(names) and "checks" in f.__module__
    }
    assert laws <= used | {one.name for one in ALL}


@every("one", EXERCISES)
def test_a_function_of_several_laws_knows_their_keys(one):
    own = functions().keys() & {f"{one.name}_{law.slug}" for law in one.laws}
    if one.name not in functions():
        assert len(own) == len(one.laws)
        return
    assert not own
    source = inspect.getsource(functions()[one.name])
    keys = set(re.findall(r'\b(?:key [!=]=|yield) "(\w+)"', source))
    laws = {law.slug for law in one.laws}
    assert keys <= laws
    assert len(laws - keys) <= 1 or re.search(r"\[key\]|, key\)|return largest", source), (
        "one law may be what is left of the others"
    )


@every("one", EXERCISES)
def test_most_of_what_is_drawn_is_in_the_space_of_the_law(one):
    function = function_of(solution(one.name).code, one.name)
    for place, law in enumerate(one.laws):
        rejected, cases = 0, range(0, one.cases, 1 if FULL else 2)
        for case in cases:
            try:
                draw = Draw(np.random.default_rng([place, case]), case / max(1, one.cases - 1))
                law.check(draw, Answer(one, local_caller(function)))
            except Rejected:
                rejected += 1
        assert rejected <= len(cases) / 2, (law.slug, rejected)


NONSENSE = [
    None, "text", [], (), {}, [[1], [1, 2]], np.array([1 + 2j]), np.nan, 10**400, -1, object(), len, (None, None),
    np.zeros((0, 3)), np.zeros((3, 3), dtype=object), {"a": 1}, np.ones(100_000), [[["a"]]], (10**400,) * 2, [{}],
    np.array("abc"), np.array(["2020-01-01"], "M8[D]"), float("inf"), (1, 2), (1, 2, 3), {1, 2}, range(3), True,
]  # fmt: skip


@every("one", EXERCISES)
def test_nonsense_breaks_a_law_and_never_the_check(one):
    for thing in NONSENSE if FULL else NONSENSE[ALL.index(one) % 4 :: 4]:
        result = judge(one, local_caller(lambda *args, thing=thing: thing), SEEDS, smallest=False)
        assert not result.passed, thing
        for verdict in result.verdicts:
            assert not verdict.message.startswith(
                "The answer has the type that the exercise asks for"
            ), (
                thing,
                result,
            )


FORBIDDEN = {
    "rank_by_elimination": [
        "numpy.linalg.matrix_rank", "lora_np.matrix_rank", "numpy.linalg.svd", "scipy.linalg.svdvals",
        "numpy.linalg.qr", "scipy.linalg.qr", "numpy.linalg.pinv", "lora_np.linalg.lu",
    ],
    "svd_by_eigenvectors": ["numpy.linalg.svd", "numpy.linalg.svdvals", "scipy.linalg.svd"],
    "gram_schmidt": ["numpy.linalg.qr", "scipy.linalg.qr", "numpy.linalg.cholesky", "scipy.linalg.orth"],
    "train_lora": ["numpy.linalg.lstsq", "numpy.linalg.pinv", "scipy.linalg.lstsq", "numpy.linalg.eigh"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "function"),
    [(name, function) for name, several in FORBIDDEN.items() for function in several],
)
def test_a_forbidden_function_is_refused_however_it_is_reached(name, function):
    module, _, called = function.rpartition(".")
    pytest.importorskip(module)
    matrix = "np.eye(3), np.eye(3)" if called == "lstsq" else "np.eye(3)"
    for source in (
        f"import {module}\ndef {name}(*args):\n    return {function}({matrix})\n",
        f"def {name}(*args):\n    from {module} import {called} as mine\n    return mine({matrix})\n",
        f"from {module} import {called}\nheld = [{called}]\ndef {name}(*args):\n    return held[0]({matrix})\n",
        f"import {module}\ndef {name}(*args):\n    try:\n        return {function}({matrix})\n"
        "    except Exception:\n        return 1\n",
    ):
        result = outcome(exercise(name), source, SEEDS, smallest=False)
        assert "The exercise forbids it: " in result.message
        assert "is not allowed in this exercise: write it yourself" in result.message


def test_an_outcome_shows_points_laws_and_the_smallest_input():
    def column_of_product(B, A, j):
        return B[:, 0] * A[0, j]

    result = exercises.check(column_of_product)
    assert repr(result).splitlines() == [
        "column_of_product: 0 of 1 point",
        "  Column j of B A mixes the columns of B, and needs no other: entry [0] of the column must be 1, got 0",
        f"  A known mistake gives this answer: with the first column of B only. Hint: {exercise('column_of_product').hints[1]}",
        "  B = np.array([[0.0, 1.0]])",
        "  A = np.array([[0.0], [1.0]])",
        "  j = 0",
        "  column_of_product(B, A, j)",
    ]


def test_what_two_laws_say_alike_is_shown_once():
    result = outcome(exercise("slope"), "def slope(f, x):\n    return 0.0\n", SEEDS)
    assert [verdict.passed for verdict in result.verdicts] == [False, False]
    assert [verdict.message for verdict in result.broken] == [result.message]
    assert repr(result).count("The shape of") == 1


def test_each_law_earns_its_points():
    result = outcome(exercise("factors_from_columns"), (
        "def factors_from_columns(M):\n    B = lnp.column_space(M)\n    return B, B.T @ M\n"
    ), SEEDS)  # fmt: skip
    assert [(v.law, v.passed) for v in result.verdicts] == [("thin", True), ("columns", False)]
    assert (result.points, result.exercise.points) == (1, 2)


def test_rng_draws_other_inputs():
    asked = [[], []]
    for rng, seen in zip((None, 1), asked, strict=True):

        def column_of_product(B, A, j, seen=seen):
            seen.append(B.tobytes())
            return B @ A[:, j]

        assert exercises.check(column_of_product, rng=rng).passed
    assert len(set(asked[0]) - set(asked[1])) > 10


def test_what_an_answer_prints_does_not_fill_the_screen(capsys):
    def lora_count(d, k, r):
        print("here", d, k, r)
        return d * k

    assert not exercises.check(lora_count).passed
    assert capsys.readouterr().out == ""


def test_an_argument_that_is_changed_is_named_and_is_a_copy():
    def rank_one_terms(B, A):
        A += 1
        return np.zeros(3)

    assert "your function has changed A" in exercises.check(rank_one_terms).message


def test_check_wants_a_function_that_an_exercise_knows():
    with pytest.raises(ValueError, match="did you mean 'rank_by_elimination'"):
        exercises.check(
            function_of("def rank_by_eliminaton(M):\n    return 0\n", "rank_by_eliminaton")
        )
    with pytest.raises(TypeError, match="check takes a function, got int"):
        exercises.check(3)


def test_a_lesson_without_exercises_is_not_handed_out(tmp_path):
    alone = [lesson for lesson in lessons() if not lesson.exercises]
    for lesson in alone:
        with pytest.raises(
            ValueError, match=f"lesson {lesson.number}, {lesson.title}, has no exer"
        ):
            exercises.start(tmp_path, [lesson.number])
    written, _ = exercises.start(tmp_path)
    assert {path.stem for path in written} == {one.stem for one in lessons() if one.exercises}


def test_lessons_by_number():
    assert [lesson.slug for lesson in lessons([10])] == ["factor-a-matrix"]
    beyond = len(lessons())
    with pytest.raises(
        ValueError, match=f"lesson must be between 0 and {beyond - 1}, got {beyond}"
    ):
        lessons([beyond])


def test_a_solution_explains_itself_and_a_course_may_leave_it_out(monkeypatch):
    shown = solution("column_of_product")
    assert repr(shown) == shown._repr_markdown_() == str(shown)
    assert shown.code.startswith("def column_of_product(B, A, j):\n")
    monkeypatch.setattr(exercises.catalogue, "exercise", lambda name: exercise("lora_count").__class__(
        "cut", "A", 1, 5, (), "", "", ()
    ))  # fmt: skip
    with pytest.raises(ValueError, match="this course leaves the solution of cut out"):
        solution("cut")


def test_of_many_names_the_closest_are_listed():
    with pytest.raises(
        ValueError, match=r"'noisy_rank', .* or \d\d more, got 'nosy_rank' \(did you mean 'noisy_"
    ) as error:
        exercise("nosy_rank")
    assert len(str(error.value)) < 400
