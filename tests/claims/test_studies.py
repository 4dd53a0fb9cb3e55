"""Studies on digits: one source of chance at a time, the old task beside the new one, LoRA-Muon."""

import numpy as np
import pytest

import lora_np as lnp
from claims.lab import batched, redrawn, studies
from claims.lab.studies import AGAIN, PER, SOURCES, Both, OneApart, frontier

SHORT = {"steps": 30}


def test_the_draws_of_a_group_differ_from_its_first_in_one_source():
    setup = OneApart()
    for group in (0, 5):
        first = setup.drawn(PER * group)
        assert len({*first.values()}) == 1
        for place in range(1, 1 + AGAIN * len(SOURCES)):
            other = setup.drawn(PER * group + place)
            assert [source for source in SOURCES if other[source] != first[source]] == [
                SOURCES[(place - 1) // AGAIN]
            ]
    assert setup.drawn(0)["base"] != setup.drawn(PER)["base"]


def test_each_source_draws_what_it_says_and_nothing_else():
    setup = OneApart(**SHORT)
    first, *others = setup.tasks([0, *(1 + AGAIN * i for i in range(len(SOURCES)))])
    changed = {}
    for source, task in zip(SOURCES, others, strict=True):
        weights = [dict(lnp.leaves(lnp.freeze(one.base))) for one in (first, task)]
        changed[source] = {
            "base": not all(np.array_equal(weights[1][path], W) for path, W in weights[0].items()),
            "halves": not np.array_equal(first.halves[0][0], task.halves[0][0]),
            "batches": not np.array_equal(first.x, task.x),
        }
    assert changed["base"] == {"base": True, "halves": False, "batches": False}
    assert changed["split"] == {"base": True, "halves": True, "batches": True}
    assert changed["start"] == {"base": False, "halves": False, "batches": False}
    assert changed["order"] == {"base": False, "halves": False, "batches": True}
    assert setup.factor_seed(0) != setup.factor_seed(1 + AGAIN * SOURCES.index("start"))


def test_the_new_loss_at_the_last_stop_is_that_of_the_run_and_the_old_one_starts_low():
    method = {"kind": "lora", "rank": 4, "alpha": 8}
    found = Both(**SHORT).runs(range(2), [0.004, 0.016], **method)
    plain = batched.Digits(**SHORT).runs(range(2), [0.004, 0.016], **method)
    for half in batched.HALVES:
        assert found[f"new {half}"].shape == (2, 2, studies.STOPS)
        assert found[f"new {half}"][..., -1] == pytest.approx(plain[half], rel=1e-5)
    assert found["old first"][:, 0, 0].max() < found["new first"][:, 0, 0].min()


def test_the_frontier_takes_the_smallest_old_loss_that_one_half_allows_and_counts_the_other():
    new = np.array([[[0.9, 0.4, 0.2], [0.8, 0.5, 0.1]]])
    old = np.array([[[1.0, 2.0, 4.0], [1.5, 3.0, 8.0]]])
    losses = {"new first": new, "old first": old, "new second": new, "old second": 10 * old}
    # at 0.5 the first half chooses old loss 2 and counts 20; the second chooses 20 and counts 2
    assert np.exp(frontier(losses, 0.5)) == pytest.approx([np.sqrt(2.0 * 20.0)])
    assert np.exp(frontier(losses, 0.2)) == pytest.approx([np.sqrt(4.0 * 40.0)])
    assert np.isinf(frontier(losses, 0.05)).all()


def stepped(A, B, to_a, to_b, lr=0.1):
    """W = B A after one step of LoRA-Muon, of stacks of one."""
    leaves = {}
    for name, M, grad in (("x.A", A, to_a), ("x.B", B, to_b)):
        leaves[name] = lnp.Tensor(M[None, None].copy())
        leaves[name].grad = grad[None, None]
    moments = {name: [np.zeros_like(leaf.data)] for name, leaf in leaves.items()}
    batched.spectral_step(leaves, moments, np.full((1, 1, 1, 1), lr))
    return leaves["x.A"].data[0, 0], leaves["x.B"].data[0, 0]


def test_a_step_of_lora_muon_does_not_depend_on_how_a_product_is_split():
    rng = np.random.default_rng(0)
    A, B, G = (rng.normal(size=shape) for shape in ((3, 7), (5, 3), (5, 7)))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ np.diag([4.0, 1.0, 0.5])
    other_A, other_B = np.linalg.inv(turn) @ A, B @ turn  # the same product
    one = stepped(A, B, B.T @ G, G @ A.T)
    two = stepped(other_A, other_B, other_B.T @ G, G @ other_A.T)
    assert two[1] @ two[0] == pytest.approx(one[1] @ one[0], abs=1e-4)
    # each half of the step has spectral norm lr / 2 in W
    for part in ((one[1] - B) @ A, B @ (one[0] - A)):
        assert np.linalg.norm(part, 2) == pytest.approx(0.05, rel=1e-3)
    # and goes down: the product with the gradient is negative
    assert np.sum(G * ((one[1] - B) @ A)) < 0
    assert np.sum(G * (B @ (one[0] - A))) < 0


def test_at_the_start_where_b_is_zero_only_b_moves():
    rng = np.random.default_rng(1)
    A, G = rng.normal(size=(2, 6)), rng.normal(size=(4, 6))
    B = np.zeros((4, 2))
    after_A, after_B = stepped(A, B, B.T @ G, G @ A.T)
    assert np.array_equal(after_A, A)
    assert np.linalg.norm(after_B @ A, 2) == pytest.approx(0.05, rel=1e-3)


def test_the_untrained_network_reads_upright_digits_and_not_the_new_task():
    found = studies.untrained(range(2))
    assert found["old"].shape == found["new"].shape == (2,)
    assert found["old"].max() < 0.5
    assert found["new"].min() > np.log(10)
    book = redrawn.Book(redrawn.FOLDER / "frontier.jsonl")
    recorded = book.logs({"method": "untrained", "level": "", "seeds": 0}, "old")
    assert np.log(found["old"]) == pytest.approx(recorded[:2], abs=1e-3)


@pytest.mark.parametrize("name", ["gradient descent", "scaled descent"])
def test_recorded_descent_comes_again(name):
    sweep = redrawn.sweeps("descent")[name]
    place = sweep.best("first", range(64))
    found = sweep.setup.runs(range(2), [redrawn.rate(place)], **sweep.method)["first"][:, 0]
    assert np.log(found) == pytest.approx(sweep.logs(place, "first", range(64))[:2], abs=0.01)
    assert np.isinf(sweep.setup.runs([0], [1000.0], **sweep.method)["first"]).all()
