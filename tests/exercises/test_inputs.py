"""Inputs are drawn from their space, small ones first; what breaks a law is made as small as
Hypothesis makes it.
"""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.extra.numpy import arrays

from lora_np.exercises.inputs import Counterexample, Draw, Rejected, shrink, weight
from lora_np.exercises.laws import LawBroken
from tests.drawing import FULL

FEW = hypothesis.settings(max_examples=400, derandomize=True, database=None)
LAWS = {
    "an entry below zero": lambda M, j: (M < 0).any(),
    "a large entry": lambda M, j: np.abs(M).max() >= 4,
    "rank two": lambda M, j: np.linalg.matrix_rank(M) >= 2,
    "three rows": lambda M, j: len(M) >= 3,
    "taller than wide": lambda M, j: M.shape[0] > M.shape[1],
    "two equal rows that are not zero": lambda M, j: any(
        (M[a] == M[b]).all() and M[a].any() for a in range(len(M)) for b in range(a)
    ),
    "a sum of seven or more": lambda M, j: M.sum() >= 7,
    "entry j differs from entry 0": lambda M, j: M[0, j] != M[0, 0],
    "not symmetric": lambda M, j: M.shape[0] == M.shape[1] and not np.array_equal(M, M.T),
    "a zero under a number": lambda M, j: (
        len(M) > 1 and M[0, 0] != 0 and M[1, 0] == 0 and M.any(axis=1).all()
    ),
}


def draw_from(draw):
    d, k = draw.sizes("dk", high=4)
    return np.rint(draw.array("M", d, k)), int(draw.whole("j", 0, k - 1))


def broken(draw):
    return Counterexample(draw.drawn, LawBroken("a law"), "a call")


def size(M, j):
    return sum(M.shape) + j, np.count_nonzero(M), np.abs(M).sum(), np.sum(M < 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_as_small_as_hypothesis(name):
    holds = LAWS[name]

    def breaks(remembered):
        draw = Draw(np.random.default_rng(0), remembered=remembered)
        return broken(draw) if holds(*draw_from(draw)) else None

    sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))
    entries = st.integers(-5, 5).map(float)
    matrices = sizes.flatmap(lambda n: arrays(np.float64, n, elements=entries))
    inputs = matrices.flatmap(lambda M: st.tuples(st.just(M), st.integers(0, M.shape[1] - 1)))
    theirs = hypothesis.find(inputs, lambda given: bool(holds(*given)), settings=FEW)
    for seed in range(50 if FULL else 3):
        for case in range(200):
            draw = Draw(np.random.default_rng([seed, case]))
            if holds(*draw_from(draw)):
                break
        found = shrink(breaks, broken(draw), attempts=600).drawn
        assert breaks(found) is not None
        ours = draw_from(Draw(np.random.default_rng(0), remembered=found))
        assert size(*ours) <= size(*theirs), (ours, theirs)


def test_what_is_tried_stays_in_the_space():
    seen = []

    def breaks(remembered):
        draw = Draw(np.random.default_rng(0), remembered=remembered)
        n = draw.whole("n", 2, 6)
        m = draw.whole("m", n, 7)
        seen.append((n, m, draw.array("x", n, m, low=1, high=3)))
        return broken(draw)

    draw = Draw(np.random.default_rng(1))
    n = draw.whole("n", 2, 6)
    draw.array("x", n, draw.whole("m", n, 7), low=1, high=3)
    found = shrink(breaks, broken(draw), attempts=600).drawn
    assert (found["n"].value, found["m"].value) == (2, 2)
    assert found["x"].value.tolist() == [[1, 1], [1, 1]]
    for n, m, x in seen:
        assert 2 <= n <= 6
        assert n <= m <= 7
        assert x.shape == (n, m)
        assert 1 <= x.min() <= x.max() <= 3


def test_small_inputs_come_first_and_hollow_and_equal_lines_come():
    def drawn(effort):
        draws = [Draw(np.random.default_rng([i, 5]), effort) for i in range(300)]
        return [draw.array("M", draw.whole("d", 1, 5), draw.whole("k", 1, 5)) for draw in draws]

    small, large = drawn(0.0), drawn(1.0)
    assert all(M.shape == (1, 1) and M in (-1, 0, 1) for M in small)
    assert {n for M in large for n in M.shape} == {1, 2, 3, 4, 5}
    assert max(M.max() for M in large) == 5
    assert any((np.rint(M) != M).any() for M in large)
    assert sum(M.size > 4 and not M.any(axis=1).all() for M in large) > 20
    assert (
        sum(len(M) > 1 and M.shape[1] > 2 and (M[0] == M[1]).all() and M.any() for M in large) > 3
    )


def test_a_case_outside_the_space_is_left_out():
    with pytest.raises(Rejected):
        Draw(np.random.default_rng(0)).assume(False)


def test_the_budget_holds():
    draw = Draw(np.random.default_rng(3))
    draw_from(draw)
    calls = []
    found = shrink(lambda drawn: calls.append(drawn), broken(draw), attempts=5)
    assert len(calls) == 5
    assert weight(found.drawn) == weight(draw.drawn)


def test_the_file_is_short():
    source = Draw.whole.__code__.co_filename
    with open(source, encoding="utf-8") as file:
        assert len(file.readlines()) <= 220
