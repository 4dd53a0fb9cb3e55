"""A mistake is named where inputs prove it, and every name is true on inputs that the check has not
seen.
"""

import numpy as np
import pytest

from lora_np.exercises import HEADER, SEEDS, exercise, judge, run_cell, solution
from lora_np.exercises.diagnosis import OFTEN, unused, usual, written
from lora_np.exercises.inputs import Counterexample
from lora_np.exercises.laws import LawBroken
from lora_np.exercises.regions import table
from lora_np.exercises.running import Mistake, call
from lora_np.exercises.testing import LAWS, again, by, local_caller, proved, telling
from tests.drawing import FULL, every, few
from tests.exercises.proofs import ALL, neighbours, unproved, unproved_by
from tests.exercises.readers import answers
from tests.exercises.truth import wrong_share

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    # BLAS sometimes raises this flag for finite matrices of odd shapes
    pytest.mark.filterwarnings("ignore:invalid value encountered in matmul"),
]
ENDLESS = "a while loop that never ends"


def function_of(read):
    names = {"__name__": "submission"}
    needs = [solution(step).code for step in exercise(read.exercise).needs]
    assert (
        run_cell("\n\n".join([HEADER, "import lora_np\n", *needs, read.source]), "cell 1", names)
        == ""
    )
    return names[read.exercise]


def judged_alone(read):
    with np.errstate(all="ignore"):
        return judge(exercise(read.exercise), local_caller(function_of(read)), SEEDS)


def check(name, source):
    names = {"np": np}
    exec(source, names)
    with np.errstate(all="ignore"):
        return judge(exercise(name), local_caller(names[name]), SEEDS)


# Iterations converge slowly where two singular values nearly meet: there a student's 100 steps give
# other directions than the 30 of a known mistake that does the same.
ITERATED = {"top_directions": 0.05}


def test_every_name_of_a_wrong_answer_is_true_and_most_get_one():
    """Of the answers that readers have written: a name is compared on 1,000 larger inputs in a full run.

    An answer can be named if it returns a value, and breaks a law of the exercise with it: what
    ends with an error, returns nothing or does what is forbidden has sentences of its own.
    """
    wrong = [read for read in answers("wrong_answers") if not read.told.startswith(ENDLESS)]
    can, named = 0, 0
    for read in few(wrong, 100):
        result, one = judged_alone(read), exercise(read.exercise)
        broken = [verdict for verdict in result.verdicts if not verdict.passed]
        laws = {law.slug: law for law in one.laws}
        can += any(v.message.startswith((laws[v.law].name, "The shape of")) for v in broken)
        named += any(v.mistake for v in broken)
        count = (1_000 if FULL else 60) if one.cases > 5 else 20
        for verdict in broken:
            if verdict.mistake:
                with np.errstate(all="ignore"):
                    share, inputs = wrong_share(
                        one, laws[verdict.law], function_of(read), verdict.mistake, count
                    )
                # where two singular values nearly meet, rounding may decide
                most = ITERATED.get(read.exercise, 0.01)
                assert share < most, (read.exercise, read.told, verdict.mistake, share)
                assert inputs >= count / 20
    assert named >= (0.7 if FULL else 0.4) * can > 0


# Answers that were once called something that they are not: no name, or one that is true.
FALSE = [
    ("lora_forward", "def lora_forward(x, W0, A, B, alpha):\n    print(x @ W0.T)", ""),
    ("dora_weight", "def dora_weight(W0, A, B, m, alpha):\n    V = W0 + alpha / len(A) * B @ A\n    return m * V / np.linalg.norm(V, axis=1)", ""),
    ("cross_entropy", "def cross_entropy(logits, labels):\n    e = np.exp(logits - logits.max(axis=1, keepdims=True))\n    p = e / e.sum(axis=1, keepdims=True)\n    return -np.mean(np.log(np.clip(p[np.arange(len(p)), labels], 1e-12, 1)))", "with probabilities cut off at 1e-12"),
    ("noisy_rank", "def noisy_rank(M, sigma):\n    return int((np.linalg.svdvals(M) > sigma * np.sqrt(sum(M.shape))).sum())", "with a threshold that is a little too low: the loudest noise counts"),
    ("cut_qr", "def cut_qr(M, r):\n    U, s, Vh = np.linalg.svd(M)\n    return U[:, :r] * s[:r] @ Vh[:r]", "with the truncated SVD"),
    ("amplification", "def amplification(W0, delta, r):\n    U, s, Vh = np.linalg.svd(delta)\n    return np.linalg.norm(delta, 2) / np.linalg.norm(U[:, :r].T @ W0 @ Vh[:r].T, 2)", "with largest singular values for both norms"),
    ("lora_count", "def lora_count(d, k):\n    return d * k", ""),
    ("lora_count", "def lora_count(d, k, r):\n    return 'many'", ""),
    ("lora_count", "def lora_count(d, k, r):\n    raise ValueError('no')", ""),
]  # fmt: skip


@every("name, source, said", FALSE)
def test_an_answer_is_not_called_what_it_is_not(name, source, said):
    assert {v.mistake for v in check(name, source).verdicts if not v.passed} <= {said, ""}


@every(
    "source, law, told",
    [
        ("return None", LAWS["None"], "it returned None; is there a return?"),
        ("print(d + k)", LAWS["None"], "print shows a value, and only return gives it"),
        ("return 'many'", "An answer is made of real numbers", "got dtype <U4"),
        ("return {}", "An answer is made of real numbers", "got dict"),
    ],
)
def test_what_is_no_number_has_a_sentence_of_its_own(source, law, told):
    (verdict,) = check("lora_count", f"def lora_count(d, k, r):\n    {source}").verdicts
    assert verdict.message.startswith(f"{law}: ")
    assert told in verdict.message
    assert verdict.mistake == ""


@every(
    "source, arity",
    [
        ("def lora_count(d, k): return d", True),
        ("def lora_count(d, k, r, n): return d", True),
        ("def f(n): return n\ndef lora_count(d, k, r): return f(d, k)", False),
        ("def lora_count(*given): return (lambda n: n)(*given)", False),
    ],
)
def test_wrong_arguments_have_a_sentence_of_their_own(source, arity):
    (verdict,) = check("lora_count", source).verdicts
    assert verdict.message.startswith(LAWS["arity"]) == arity
    assert verdict.mistake == ""


def broken(value, i):
    return value is not None and Counterexample(
        {}, LawBroken("", "", compared=value), ([i], {"value": value})
    )


def given(*values):
    return [None if value is None else broken(value, i) for i, value in enumerate(values)]


def test_a_name_needs_five_inputs_against_every_rival():
    one, other, nameless = (Mistake(name, "", name) for name in ("one", "other", ""))
    answer, near = given(1, 2, 3, 4, 5, None, None), given(1, 2, 3, 4, 6, 6, 6)
    far = given(9, 9, 9, 4, 5, 6, 6)

    def listed(*rivals, others=()):
        answers = {mistake.code: values for mistake, values in (*rivals, *others)}
        mistakes, more = ([mistake for mistake, _ in some] for some in (rivals, others))
        return unproved(mistakes, more, answers)

    assert OFTEN == 5
    assert listed((one, answer)) == []
    # another known mistake must differ on five, be it where the answer is right
    assert listed((one, answer), (other, near)) == ["one", "other"]
    assert listed((one, answer), (other, answer)) == ["one", "other"]
    assert listed((one, answer), (other, far)) == []
    # and so must a change of the solution, unless it is the same
    assert listed((one, answer), others=[(nameless, near)]) == ["one"]
    assert listed((one, answer), others=[(nameless, answer)]) == []
    assert listed(others=[(nameless, answer)]) == []
    assert listed(others=[(other, answer)]) == []
    # what breaks a law with too few values is never named
    assert listed((one, given(1, 2, 3, 4, None, None, None)), others=[(nameless, near)]) == []


LAWFUL = [(one.name, law.slug) for one in ALL for law in one.laws]


@pytest.mark.parametrize(("name", "slug"), few(LAWFUL, 12))
def test_what_a_law_cannot_tell_apart_is_listed(name, slug):
    (one,) = (one for one in ALL if one.name == name)
    (law,) = (law for law in one.laws if law.slug == slug)
    if one.cases > 5 or FULL:
        listed = table("diagnosis")["unproved"].get(f"{name} {slug}", [])
        assert sorted(unproved_by(one, law)) == sorted(listed)


def test_only_names_and_laws_that_exist_are_listed():
    known = {f"{one.name} {law.slug}": one for one in ALL for law in one.laws}
    for place, names in table("diagnosis")["unproved"].items():
        one = known[place]
        assert {*names} <= {mistake.name for mistake in (*one.mistakes, *usual(one.name))}


def test_a_check_names_what_is_the_same_on_all_inputs_and_is_not_listed(monkeypatch):
    one = exercise("cut")
    (law, *_), mistake = one.laws, one.mistakes[0]
    answer = by(mistake.code, one)
    assert proved(law, answer, one.mistakes) is mistake
    assert proved(law, answer, one.mistakes[1:]) is None
    assert proved(law, by(one.answer, one), one.mistakes) is None  # it breaks no law
    listed = {f"cut {law.slug}": [mistake.name] for law in one.laws}
    assert mistake.name in [v.mistake for v in judge(one, answer.caller, SEEDS).verdicts]
    monkeypatch.setitem(table("diagnosis"), "unproved", listed)
    assert mistake.name not in [v.mistake for v in judge(one, answer.caller, SEEDS).verdicts]


def test_a_mistake_is_told_once():
    one = exercise("lora_gradients")
    verdicts = judge(one, by(one.mistakes[0].code, one).caller, SEEDS).verdicts
    assert [v.passed for v in verdicts] == [False, False]
    assert [v.mistake for v in verdicts if v.mistake] == [one.mistakes[0].name]


@every("one", [one for one in few(ALL, 8) if FULL or one.cases > 5])
def test_a_solution_satisfies_its_laws_on_the_inputs_that_are_remembered(one):
    """They are drawn again as they were, and nothing that a law draws replaces something else."""
    solution = by(one.answer, one)
    for law in one.laws:
        for inputs, arguments in telling(one, law):
            assert again(law, solution, inputs) is None
            assert str(solution.last[0]) == str(arguments)


def test_inputs_are_counted_once():
    for one in few([exercise("cut"), exercise("lora_gradients")], 2):
        seen = [repr(arguments) for law in one.laws for _, arguments in telling(one, law)]
        assert len(set(seen)) == len(seen) > 20


def test_unused_takes_a_value_that_never_changes_where_it_should():
    asked = [[float(i), 2.0 * i + 1] for i in range(8)]

    def of(function):
        return lambda arguments, rules: call(function, arguments)

    right = of(lambda a, b: a * b)
    told = [
        (lambda a, b: b, "without using a"),
        (lambda a, b: 3.0, "without using a and b"),
        (lambda a, b: a + b, ""),
        (lambda a, b: b if a < 6 else 7.0, ""),  # used once
        (lambda a, b: None, ""),
        (lambda a, b: 1 / 0, ""),
        (lambda a, b: "text", "without using a and b"),
    ]
    for function, name in told:
        assert unused(["a", "b"], of(function), right, lambda: asked) == name
    # where it makes no difference, it need not be used
    assert unused(["a", "b"], of(lambda a, b: b), of(lambda a, b: 2 * b), lambda: asked) == ""
    assert unused(["a", "b"], of(lambda a, b: b), right, lambda: asked[:4]) == ""


def test_the_tables_change_a_solution():
    one = exercise("lora_count")
    assert written(usual(one.name)[0].code, one.name, one.answer)(3, 2, 1) == -5
    codes = {mistake.code for mistake in neighbours(one)}
    assert any("r * (d - k)" in code for code in codes)
    assert all(mistake.name == "" for mistake in neighbours(one))
    loop = exercise("backward")
    assert "while" not in loop.answer or neighbours(loop) == []
