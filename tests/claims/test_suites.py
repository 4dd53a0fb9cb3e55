"""Suites of merging and setups of capacity: tasks, scales, levels and correlations are what they
say.
"""

import json

import numpy as np
import pytest

import lora_np as lnp
from benchmarks import merging, weighted
from claims.lab import memorising, suites
from recipes.pages import markdown


@pytest.mark.parametrize("seed", range(3))
def test_conflict_turns_one_task_to_unrelated_ones(seed):
    apart = []
    for conflict in (0, 0.5, 1):
        turns = suites.rotations(np.random.default_rng(seed), conflict)
        for Q in turns:
            np.testing.assert_allclose(Q @ Q.T, np.eye(64), atol=1e-10)
        apart.append(np.mean([np.linalg.norm(Q - turns[0]) for Q in turns[1:]]))
    assert apart[0] < 1e-10
    assert apart[1] < apart[2]


@pytest.fixture(scope="module")
def tasks():
    return {kind: suites.Digits(kind, steps=20).tasks(0) for kind in ("mild", "heads")}


@pytest.mark.parametrize("kind", ["mild", "heads"])
def test_a_task_is_its_base_with_its_own_update(tasks, kind):
    suite, some = suites.Digits(kind), tasks[kind]
    for task in some.values():
        before, after = (dict(lnp.leaves(model)) for model in (task.base, task.model(task.own())))
        changed = [path for path in before if not np.array_equal(before[path], after[path])]
        assert changed == [f"{layer}.W" for layer in suites.HIDDEN]
        x = task.parts["validation"][0]
        assert {len(np.unique(task.parts[part][1])) for part in task.parts} == {
            2 if kind == "heads" else 10
        }
        assert np.shape(task.base(x))[1] == (2 if kind == "heads" else 10)
    total = suites.merged(some, "sum", 0)
    for path in suites.HIDDEN:
        np.testing.assert_allclose(
            total[path], sum(task.own()[path] for task in some.values()), atol=1e-5
        )
    nothing = suites.scores(suite, some, "test", total, 0.0)
    assert nothing["loss"] == [
        suite.score(task.base, task.parts["test"])["loss"] for task in some.values()
    ]


def test_grams_are_of_what_each_layer_is_given(tasks):
    task = next(iter(tasks["mild"].values()))
    found = suites.Digits("mild").grams(task, rows=50)
    x = task.parts["training"][0][:50]
    np.testing.assert_allclose(found["layers.0"], x.T @ x, rtol=1e-5)
    hidden = np.maximum(np.asarray(task.base.layers[0](x)), 0)
    np.testing.assert_allclose(found["layers.2"], hidden.T @ hidden, rtol=1e-5)


@pytest.mark.parametrize("best", suites.SCALES)
def test_climbing_finds_the_top_of_a_hill(best):
    hill = lambda scale: -abs(np.log(scale / best))
    assert suites.climbed(hill, "right", 0.4) == best
    assert suites.climbed(lambda scale: -hill(scale), "loss", 0.4) == best


def test_equal_norms_are_equal_and_keep_the_mean(tasks):
    some = tasks["mild"]
    sizes = {n: sum(np.sum(D**2) for D in task.own().values()) ** 0.5 for n, task in some.items()}
    weights = suites.equal_norms(some)
    np.testing.assert_allclose([weights[n] * sizes[n] for n in some], np.mean([*sizes.values()]))


def test_rank_correlation_sees_order_only():
    x = np.random.default_rng(0).normal(size=30)
    assert suites.rank_correlation(x, np.exp(3 * x)) == pytest.approx(1)
    assert suites.rank_correlation(x, -(x**3)) == pytest.approx(-1)
    assert abs(suites.rank_correlation(np.arange(31), (np.arange(31) - 15) ** 2)) < 0.2


def test_a_pair_that_is_one_task_twice_moves_as_far_and_lies_within(tasks):
    task = tasks["mild"]["left"]
    grams = suites.Digits("mild").grams(task)
    (found,) = suites.guesses({"a": task, "b": task}, {"a": grams, "b": grams}).values()
    assert found == pytest.approx({"overlap": 1, "cosine": 1, "moved": 1}, abs=1e-5)


@pytest.mark.parametrize("width", memorising.STORED)
def test_levels_are_as_many_as_the_bits_allow(width):
    M = np.random.default_rng(width).normal(size=(5, 400)).astype(np.float32)
    stored = memorising.in_levels(M, width)
    assert max(len(np.unique(row)) for row in stored) <= 2**width
    error = np.linalg.norm(stored - M) / np.linalg.norm(M)
    assert error < {8: 0.01, 4: 0.13, 3: 0.22, 2: 0.37}[width]


def test_lines_have_different_keys_and_uniform_letters():
    tokens = memorising.lines(np.random.default_rng(0), 2000)
    assert len({tuple(row[:4]) for row in tokens}) == 2000
    counts = np.unique(tokens[:, 5:], return_counts=True)[1]
    assert len(counts) == 26
    assert counts.max() < 1.3 * counts.min()


def test_bits_are_counted_from_uniform_labels():
    found = memorising.Labels(steps=1).run(1e-9, 0, kind="lora", rank=1, alpha=1)
    assert found["bits"] < 0.1  # nothing is learnt in no step
    assert found["numbers"] == 32 + 64


def test_the_page_has_the_recorded_tables():
    known = json.loads(merging.RESULTS.read_text(encoding="utf-8"))
    page = (merging.RESULTS.parents[1] / "docs" / "use" / "merge.md").read_text(encoding="utf-8")
    for name, table in merging.pages(known).items():
        assert table.strip() in page, name
    for found in known.values():
        for measures in found["ways"].values():
            assert all(
                len(values) == 5 for numbers in measures.values() for values in numbers.values()
            )
    pairs = sum(len(run) for found in known.values() for run in found.get("pairs", [])[:1])
    assert pairs >= 50


def test_the_page_on_resizing_has_what_inputs_were_worth():
    rows = json.loads(weighted.RESULTS.read_text(encoding="utf-8"))
    page = (weighted.RESULTS.parents[1] / "docs" / "use" / "resize.md").read_text(encoding="utf-8")
    for made in (weighted.losses(rows), weighted.table(rows)):
        assert markdown(made).strip() in page
    adapters = {
        kind: {row["adapter"] for row in rows if row["kind"] == kind}
        for kind in ("shipped", "trained")
    }
    assert (len(adapters["shipped"]), len(adapters["trained"])) == (3, 12)
    for row in rows:
        if "rank" in row:  # a rank in total is spent on other modules, of other sizes
            assert row["bytes, plain"] == row["bytes, weighted"]
        assert row["whole"] < row["base"]
