"""Expressions: Python's answers, in bounded time."""

import random
import re
import signal
import time
from contextlib import contextmanager

import pytest
from hypothesis import given, settings, strategies as st

from lora_np.models.expressions import Expression
from tests.drawing import FULL, examples

_ATOMS = st.sampled_from(
    [
        "a",
        "b",
        ".",
        r"\.",
        r"\d",
        r"\D",
        r"\w",
        r"\W",
        r"\s",
        "[ab]",
        "[^a]",
        "[a-c.]",
        "^",
        "$",
        r"\b",
        r"\B",
    ]
)


def _wrapped(inner):
    group = st.sampled_from(["({})", "(?:{})", "(?={})", "(?!{})"])
    repeat = st.sampled_from(
        ["({})*", "({})+", "({})?", "(?:{}){{2}}", "(?:{}){{1,3}}", "(?:{})*?", "{}|a", "a|{}"]
    )
    return st.builds(lambda form, text: form.format(text), group | repeat, inner) | st.builds(
        "".join, st.lists(inner, min_size=2, max_size=3)
    )


@settings(max_examples=examples(1500), deadline=None)
@given(st.recursive(_ATOMS, _wrapped, max_leaves=6), st.text("ab.0 -\n", min_size=1, max_size=6))
def test_the_answers_are_those_of_re(text, name):
    try:
        expected = re.fullmatch(text, name) is not None
    except re.error:  # "a**" and the like
        with pytest.raises(ValueError, match="must be a regular expression"):
            Expression(text)
        return
    assert Expression(text).matches(name) == expected
    padded = f"(?:{text})(?:x?x?x?)"  # never left to re
    assert Expression(padded).matches(name) == expected


@pytest.mark.parametrize("text", [r"(?<=a)b|ab", r"a(?<=a)b", r"a(?<!b)b", r"(?<!a)b|(?<=aa)b"])
@pytest.mark.parametrize("name", ["ab", "b", "aab", "abb"])
def test_what_lies_behind(text, name):
    assert Expression(f"{text}(?:x?x?x?)").matches(name) == bool(
        re.fullmatch(f"{text}(?:x?x?x?)", name)
    )


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("(a|a)" * 30, {30}),
        ("a?" * 28 + "a" * 28, {28, 30}),
        (".*.*.*b", set()),
        ("(a*)*b", set()),
        ("((a*)*)*b", set()),
        ("(a|aa)+$b", set()),
        (".*" * 40 + "b", set()),
    ],
)
def test_no_expression_takes_for_ever(text, matching):
    begin = time.process_time()
    for length in (20, 28, 30, 200):
        assert Expression(text).matches("a" * length) == (length in matching)
    assert time.process_time() - begin < 20


@contextmanager
def at_most(seconds):
    """At most these seconds of the processor: Python's re looks at signals while it matches."""

    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


needs_alarm = pytest.mark.skipif(not hasattr(signal, "alarm"), reason="no alarms here")
HIDDEN = [  # ways through, that text alone does not show
    "(?x)(.|.) {30}b",
    "(?x)(.|.) # repeated:\n{30}b",
    "(?x)(?:a|aa) +b",
    "(?x: (.|.) {30}b)",
    "(?:" * 8 + "a" + "|a)" * 8 + "{30}b",
    r"((.|.)\2?){30}b",
    "(?:a|a|a|a){9}" * 2 + "b",
    "(?P<n>a?){30}(?P=n)b",
    "(?:(?=(a|a)){30}a){30}b",
    ".*.*(?:" + "|".join(["a"] * 8) + r")(?=.*.*)c",
    r"(.*)(.*)\1\2b",
    r"(.*)(.*)(?(1)\1|\2)b",
]


@needs_alarm
@pytest.mark.parametrize("text", HIDDEN)
@pytest.mark.parametrize("end", [False, True])
def test_no_expression_hides_its_ways(text, end):
    with at_most(10):
        try:
            expression = Expression(text, end=end)
        except ValueError as error:
            assert "cannot be matched in bounded time" in str(error) or end  # noqa: PT017
        else:
            assert not any(expression.matches("a" * n) for n in (20, 60, 127, 128, 129, 300))


PIECES = [
    *"ab.|()^$#",
    " ",
    "\n",
    "(?:",
    "(?=",
    "(?!",
    "(?<=",
    "(?<!a)",
    "(?>",
    "(?i:",
    "(?x: ",
    "(?P<n>",
    "(?P=n)",
]
PIECES += [
    "*",
    "+",
    "?",
    "{2}",
    "{,3}",
    "{1,}",
    "{30}",
    "*?",
    "++",
    r"\1",
    "(?(1)",
    "(?#x)",
    r"\b",
    "[ab]",
    "[^a]",
]
PIECES += ["(a|a)", "(.|.)", ".*", "a?"]


@needs_alarm
@pytest.mark.parametrize("seed", range(4))
def test_no_text_at_all_takes_for_ever_or_gets_another_answer(seed):
    draw = random.Random(seed)
    for _ in range(2_000 if FULL else 400):
        text = draw.choice(["", "", "(?x)", "(?i)"]) + "".join(
            draw.choices(PIECES, k=draw.choice([4, 8, 12]))
        )
        text += ")" * max(text.count("(") - text.count(")"), 0)
        end = draw.random() < 0.3
        with at_most(10):
            try:
                expression = Expression(text * draw.choice([1, 1, 3]), end=end)
                for name in ("a" * 40, "a" * 127 + "b", "." * 128, "a" * 200):
                    expression.matches(name)
                answers = {
                    name: expression.matches(name) for name in ("", "a", "b", "aB", "x.ab", "a #")
                }
            except ValueError:
                continue
        for name, answer in answers.items():  # short names cannot take long
            ends = [i + 1 for i, character in enumerate(name) if end and character == "."]
            text = re.compile(expression.text)
            # "^" and what looks behind see all of the name
            assert answer == any(text.fullmatch(name, i) for i in [0, *ends]), (
                expression.text,
                name,
                end,
            )


def test_the_group_of_a_reference_is_its_own():
    assert Expression(r"(q|k)_\1", end=True).matches("layers.0.q_q")
    assert not Expression(r"(q|k)_\1", end=True).matches("layers.0.q_k")


def test_work_is_counted_and_refused():
    expression = Expression("(?:(?=(?:(?=a*)a)*)a)*")
    begin = time.process_time()
    with pytest.raises(ValueError, match="too many steps"):
        expression.matches("a" * 400)
    assert time.process_time() - begin < 30


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(?i)a.*.*.*", "flags"),
        (r"(a*)\1(b*)(c*)", "backreference"),
        ("(?>a*)*b", "atomic"),
        ("a" * 5000, "4,000"),
    ],
)
def test_what_cannot_be_bounded_is_refused_by_name(text, why):
    with pytest.raises(ValueError, match=why):
        Expression(text, what="target_modules")
