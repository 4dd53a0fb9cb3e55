"""Sharing out a budget: optimal where theory says so, and within its bound elsewhere, against brute
force.
"""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import header
from lora_np.adapters.peft_format import METADATA, keyed
from lora_np.adapters.spectra import Goal, Spectrum, allocate
from lora_np.files import FileError
from lora_np.hub import safetensors
from tests.drawing import examples

SPECTRA = st.lists(
    st.lists(st.floats(0, 10).map(lambda x: round(x, 2)), min_size=1, max_size=3).map(
        lambda s: sorted(s, reverse=True)
    ),
    min_size=1,
    max_size=4,
)


def kept(spectra, ranks):
    return sum(float(np.square(spectra[name][:rank]).sum()) for name, rank in ranks.items())


def brute_force(spectra, costs, budget):
    """The most that any ranks keep within the budget."""
    choices = itertools.product(*(range(len(s) + 1) for s in spectra.values()))
    named = (dict(zip(spectra, choice, strict=True)) for choice in choices)
    return max(kept(spectra, r) for r in named if sum(r[n] * costs[n] for n in r) <= budget)


def problem(spectra, costs):
    names = [f"m{i}" for i in range(len(spectra))]
    return (
        {name: np.array(s) for name, s in zip(names, spectra, strict=True)},
        dict(zip(names, costs, strict=False)),
    )


@settings(deadline=None, max_examples=examples(200))
@given(SPECTRA, st.integers(1, 12))
def test_with_equal_costs_no_choice_keeps_more(spectra, budget):
    spectra, costs = problem(spectra, [1] * 4)
    ranks = allocate(spectra, costs, budget)
    assert sum(ranks.values()) <= budget
    assert kept(spectra, ranks) == pytest.approx(brute_force(spectra, costs, budget), rel=1e-12)


@settings(deadline=None, max_examples=examples(200))
@given(SPECTRA, st.lists(st.integers(1, 9), min_size=4, max_size=4), st.integers(9, 40))
def test_with_any_costs_it_is_short_by_at_most_the_first_value_that_did_not_fit(
    spectra, costs, budget
):
    spectra, costs = problem(spectra, costs)
    ranks = allocate(spectra, costs, budget)
    assert sum(rank * costs[name] for name, rank in ranks.items()) <= budget
    by_worth = sorted(
        (
            (value**2 / costs[name], costs[name], value**2)
            for name, s in spectra.items()
            for value in s
        ),
        reverse=True,
    )
    left, unfit = budget, 0.0
    for _, cost, square in by_worth:
        left -= cost
        if left < 0:
            unfit = square
            break
    assert kept(spectra, ranks) >= brute_force(spectra, costs, budget) - unfit - 1e-9


def test_what_must_be_there_is_taken_first():
    spectra = {"a": np.array([9.0, 8.0]), "b": np.array([1.0])}
    assert allocate(spectra, {"a": 1, "b": 1}, 2, at_least={"b": 1}) == {"a": 1, "b": 1}


def test_nothing_is_spent_on_zeros():
    assert allocate({"a": np.array([1.0, 0.0])}, {"a": 1}, 5) == {"a": 1}


@pytest.mark.parametrize(("at_least", "minimum"), [({}, 3), ({"a": 1, "b": 1}, 7)])
def test_a_budget_that_suffices_for_nothing_is_refused_with_the_least_one(at_least, minimum):
    spectra = {"a": np.array([1.0]), "b": np.array([1.0])}
    costs = {"a": 3, "b": 4}
    with pytest.raises(ValueError, match=f"ranks must be at least {minimum}, got {minimum - 1}"):
        allocate(spectra, costs, minimum - 1, at_least=at_least, name="ranks")
    allocate(spectra, costs, minimum, at_least=at_least, name="ranks")


def adapter_with(shapes, spectra, **parts):
    """An adapter whose modules have these singular values, and those."""
    modules = {
        f"layers.{i}": AdapterModule.of(
            A=np.eye(len(s), k, dtype=np.float32),
            B=np.eye(d, len(s), dtype=np.float32) * np.array(s, np.float32),
            alpha=len(s),
            **{part: np.ones(d, np.float32) for part in parts},
        )
        for i, ((d, k), s) in enumerate(zip(shapes, spectra, strict=True))
    }
    return Adapter(modules), {name: np.array(s) for name, s in zip(modules, spectra, strict=True)}


def size_of(adapter, ranks):
    modules = {
        name: AdapterModule.of(A=module.A[: ranks[name]], B=module.B[:, : ranks[name]], alpha=1)
        for name, module in adapter.items()
        if ranks[name]
    }
    tensors = header(keyed(Adapter(modules, adapter.full)))
    return safetensors.file_size(tensors, metadata=METADATA)


shapes_of_all = st.lists(st.tuples(st.integers(3, 40), st.integers(3, 40)), min_size=4, max_size=4)


def ranks_of(adapter, spectra, size):
    return Goal("budget", size).ranks(
        adapter, {name: Spectrum(s) for name, s in spectra.items()}, adapter
    )


@settings(deadline=None, max_examples=examples(200))
@example([[1.0], [3.0], [6.0, 4.0]], [(3, 3), (3, 10), (10, 37), (3, 3)], 856)
@given(SPECTRA, shapes_of_all, st.integers(200, 3000))
def test_a_file_takes_directions_by_their_worth_up_to_the_first_that_does_not_fit(
    spectra, shapes, size
):
    adapter, spectra = adapter_with(shapes[: len(spectra)], spectra)
    worth = [
        (-value * value / (4 * sum(adapter[name].shape)), name)
        for name, s in spectra.items()
        for value in s.tolist()
        if value > 0
    ]
    order = [name for _, name in sorted(worth)]
    firsts = [Counter(order[:n]) for n in range(1, len(order) + 1)]
    fitting = [ranks for ranks in firsts if size_of(adapter, ranks) <= size]
    if not fitting:
        why = (
            f"budget must be at least {size_of(adapter, firsts[0])}, got {size}"
            if firsts
            else "is zero"
        )
        with pytest.raises(ValueError, match=why):
            ranks_of(adapter, spectra, size)
    else:
        assert ranks_of(adapter, spectra, size) == {name: fitting[-1][name] for name in adapter}


def test_magnitudes_and_biases_stay_with_one_direction():
    adapter, spectra = adapter_with([(8, 8)] * 3, [[3.0, 2.0], [1.0, 0.5], [0.1, 0.0]], bias=True)
    with pytest.raises(ValueError, match="budget must be at least") as caught:
        ranks_of(adapter, spectra, 1)
    minimum = int(str(caught.value).split()[5].rstrip(","))
    assert set(ranks_of(adapter, spectra, minimum).values()) == {1}
    assert ranks_of(adapter, spectra, minimum + 64) == {"layers.0": 2, "layers.1": 1, "layers.2": 1}


def test_an_adapter_of_zeros_comes_to_nothing():
    adapter, spectra = adapter_with([(8, 8)], [[0.0, 0.0]])
    with pytest.raises(FileError, match=r"^<Adapter of 1 .*>: every module is zero, so there"):
        ranks_of(adapter, spectra, 1000)


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.floats(0, 1))
def test_the_rank_for_a_loss_is_the_smallest_that_meets_it(values, share):
    s = np.sort(np.array(values))[::-1]
    total = float(np.square(s).sum())
    rank = Spectrum(s).needed(1 - share)
    assert np.square(s[rank:]).sum() <= share * total * (1 + 1e-12) + 1e-12 * total
    assert rank == 1 or np.square(s[rank - 1 :]).sum() > share * total


def test_values_that_do_not_reach_the_share_say_so():
    assert Spectrum(np.array([1.0]), missing=9.0).needed(0.5) == 2


@pytest.mark.parametrize(
    ("goal", "error", "message"),
    [
        (
            {},
            ValueError,
            "give one of rank, energy, tolerance, budget, total_rank, got none of them",
        ),
        ({"rank": 1, "energy": 0.5}, ValueError, "got rank and energy"),
        ({"rank": 0}, ValueError, "rank must be at least 1, got 0"),
        ({"rank": 2.5}, TypeError, "rank must be a whole number, got 2.5"),
        ({"energy": 0.0}, ValueError, "energy must be above 0 and at most 1, got 0.0"),
        ({"energy": 1.5}, ValueError, "energy must be above 0 and at most 1, got 1.5"),
        ({"tolerance": 1.0}, ValueError, "tolerance must be at least 0 and below 1, got 1.0"),
        ({"budget": -5}, ValueError, "budget must be at least 1, got -5"),
    ],
)
def test_goals_that_make_no_sense_are_refused(goal, error, message):
    with pytest.raises(error, match=message):
        Goal.of(
            "",
            **{
                "rank": None,
                "energy": None,
                "tolerance": None,
                "budget": None,
                "total_rank": None,
                **goal,
            },
        )
