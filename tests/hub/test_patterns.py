"""Expressions: Python's answers, in bounded time."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_np.hub.patterns import Expression

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


@settings(max_examples=1500, deadline=None)
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
    assert Expression(f"{text}(?:x?x?x?)").matches(name) == bool(re.fullmatch(f"{text}(?:x?x?x?)", name))


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
    begin = time.perf_counter()
    for length in (20, 28, 30, 200):
        assert Expression(text).matches("a" * length) == (length in matching)
    assert time.perf_counter() - begin < 2


def test_work_is_counted_and_refused():
    expression = Expression("(?:(?=(?:(?=a*)a)*)a)*")
    begin = time.perf_counter()
    with pytest.raises(ValueError, match="too many steps"):
        expression.matches("a" * 400)
    assert time.perf_counter() - begin < 30


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(?i)a.*.*.*", "flags"),
        (r"(a*)\1(b*)(c*)", "groupref"),
        ("(?>a*)*b", "atomic"),
        ("a" * 5000, "4,000"),
    ],
)
def test_what_cannot_be_bounded_is_refused_by_name(text, why):
    with pytest.raises(ValueError, match=why):
        Expression(text, what="target_modules")
