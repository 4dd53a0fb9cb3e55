"""Optimizers against their equations, their laws, and torch."""

import numpy as np
import pytest

from lora_np import SGD, Adam, AdamW, Linear, Tensor, cosine_schedule, training_run
from lora_np.nn import Groups, linear_schedule

ALL = [
    SGD(lr=0.1), SGD(lr=0.1, momentum=0.9), Adam(lr=0.1), AdamW(lr=0.1, weight_decay=0.1),
]  # fmt: skip


def quadratic(w, target=3.0):
    return np.sum(np.square(w - target))


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_every_optimizer_descends(optimizer):
    w = Tensor(np.zeros((2, 3)))
    run = training_run(optimizer, w)
    first = quadratic(w).item()
    for _ in range(200):
        quadratic(w).backward()
        run.step()
    assert quadratic(w).item() < 0.02 * first


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_frozen_arrays_are_not_touched(optimizer):
    W, b = np.ones((2, 3)), Tensor(np.zeros(2))
    model = Linear(W, b)
    run = training_run(optimizer, model)
    quadratic(model(np.full((4, 3), 2.0))).backward()
    run.step()
    np.testing.assert_array_equal(W, 1)
    assert b.data.any()
    assert b.grad is None


def test_one_bank_or_many_arrays_is_the_same():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=s) for s in [(2, 3), (4,), ()]]
    together = [Tensor(v) for v in values]
    run = training_run(Adam(lr=0.1), together)
    alone = [Tensor(v) for v in values]
    runs = [training_run(Adam(lr=0.1), w) for w in alone]
    for _ in range(5):
        for w in (*together, *alone):
            quadratic(w).backward()
        run.step()
        for r in runs:
            r.step()
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_dtypes_stay_apart():
    a, b = Tensor(np.zeros(2, np.float32)), Tensor(np.zeros(2))
    run = training_run(Adam(lr=0.1), [a, b])
    (quadratic(a) + quadratic(b)).backward()
    run.step()
    assert (a.dtype, b.dtype) == (np.float32, np.float64)
    assert run.nbytes == 2 * (a.nbytes + b.nbytes)


def test_a_leaf_that_was_given_new_values_is_taken_as_it_is():
    w = Tensor(np.zeros(2))
    run = training_run(SGD(lr=0.5), w)
    w.data = np.full(2, 10.0)
    quadratic(w).backward()
    run.step()
    np.testing.assert_allclose(w.data, 3)


def test_a_leaf_without_gradient_counts_as_zero():
    a, b = Tensor(np.zeros(2)), Tensor(np.ones(2))
    run = training_run(SGD(lr=0.1), [a, b])
    quadratic(a).backward()
    run.step()
    np.testing.assert_array_equal(b.data, 1)


def test_a_step_without_any_gradient_is_an_error():
    run = training_run(SGD(lr=0.1), Tensor(np.zeros(2)))
    with pytest.raises(RuntimeError, match=r"call loss\.backward"):
        run.step()


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="the model has no Tensor"):
        training_run(Adam(), Linear(np.ones((2, 2))))


@pytest.mark.parametrize(("make", "match"), [
    (lambda: Adam(lr=0), "lr must be above 0, got 0"),
    (lambda: SGD(lr=-1.0), "lr must be above 0, got -1.0"),
    (lambda: Adam(lr=float("nan")), "lr must be finite, got nan"),
    (lambda: SGD(lr=0.1, momentum=1.0), "momentum must be at least 0 and below 1, got 1.0"),
    (lambda: Adam(beta1=1.0), "beta1 must be at least 0 and below 1"),
    (lambda: Adam(beta2=1.0), "beta2 must be at least 0 and below 1"),
    (lambda: Adam(eps=0), "eps must be above 0, got 0"),
    (lambda: AdamW(weight_decay=-0.1), "weight_decay must be at least 0, got -0.1"),
    (lambda: cosine_schedule(0.1, steps=0), "steps must be at least 1, got 0"),
    (lambda: cosine_schedule(0.1, steps=5, warmup=6), "warmup must be between 0 and steps = 5, got 6"),
])  # fmt: skip
def test_settings_out_of_range(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_settings_of_the_wrong_type():
    with pytest.raises(TypeError, match="lr must be a number, got 'fast'"):
        Adam(lr="fast")


@pytest.mark.parametrize("make", [cosine_schedule, linear_schedule])
def test_schedules_rise_fall_and_stay(make):
    rate = make(0.1, steps=100, warmup=10, final=0.01)
    rates = np.array([rate(t) for t in range(120)])
    assert (np.diff(rates[:10]) > 0).all()
    assert rates[9] == rates[10] == pytest.approx(0.1)
    assert (np.diff(rates[10:100]) < 0).all()
    np.testing.assert_allclose(rates[100:], 0.01)
    rising = make(0.1, steps=10, warmup=10)
    assert (rising(9), rising(10)) == (0.1, 0)


def test_a_schedule_sets_the_rate_of_each_step():
    w = Tensor(np.zeros(1))
    run = training_run(SGD(lr=lambda step: [1.0, 0.5][step]), w)
    for _ in range(2):
        np.sum(w).backward()
        run.step()
    np.testing.assert_array_equal(w.data, [-1.5])


@pytest.mark.peers
@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_same_path_as_torch(optimizer):
    import torch

    ours = Tensor(np.linspace(-1, 1, 6).reshape(2, 3))
    theirs = torch.tensor(ours.data.copy(), requires_grad=True)
    if isinstance(optimizer, SGD):
        peer = torch.optim.SGD([theirs], lr=0.1, momentum=optimizer.momentum)
    elif isinstance(optimizer, AdamW):
        peer = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.1)
    else:
        peer = torch.optim.Adam([theirs], lr=0.1)
    run = training_run(optimizer, ours)
    for _ in range(50):
        quadratic(np.sin(ours)).backward()
        run.step()
        peer.zero_grad()
        torch.sum((torch.sin(theirs) - 3.0) ** 2).backward()
        peer.step()
    np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-9)


def test_groups_give_each_part_its_optimizer():
    model = {"A": Tensor([1.0]), "layers": [{"A": Tensor([1.0]), "B": Tensor([1.0])}]}
    run = training_run(Groups({r"layers\..*\.B": SGD(lr=0.5), "A": SGD(lr=0.1)}), model)
    np.sum(model["A"] + model["layers"][0]["A"] + model["layers"][0]["B"]).backward()
    run.step()
    moved = [
        float(t.data[0]) for t in (model["A"], model["layers"][0]["A"], model["layers"][0]["B"])
    ]
    np.testing.assert_allclose(moved, [0.9, 0.9, 0.5])


def test_groups_keep_their_own_state_and_schedule():
    a, b = Tensor([1.0]), Tensor([1.0])
    alone = [Tensor([1.0]), Tensor([1.0])]
    settings = [Adam(lr=0.1), SGD(lr=linear_schedule(0.3, steps=5), momentum=0.9)]
    together = training_run(Groups(dict(zip(["0", "1"], settings, strict=True))), [a, b])
    runs = [training_run(s, t) for s, t in zip(settings, alone, strict=True)]
    assert together.nbytes == 3 * 8
    for _ in range(5):
        for t in (a, b, *alone):
            quadratic(t).backward()
        for run in (together, *runs):
            run.step()
    np.testing.assert_array_equal([a.data, b.data], [t.data for t in alone])


def test_groups_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"no pattern of Groups fits 'b': add it, or '\.\*' for the rest"
    ):
        training_run(Groups({"a": SGD(lr=1.0)}), {"a": Tensor(0.0), "b": Tensor(0.0)})
    with pytest.raises(ValueError, match="the pattern 'c' of Groups fits no leaf; leaves: a, b"):
        training_run(
            Groups({"c": SGD(lr=1.0), ".*": SGD(lr=2.0)}), {"a": Tensor(0.0), "b": Tensor(0.0)}
        )
    with pytest.raises(ValueError, match="at least one pattern"):
        Groups({})


def test_a_tied_weight_is_found_under_any_of_its_names():
    tied = Tensor([1.0])
    run = training_run(Groups({"head": SGD(lr=0.5)}), {"embedding": tied, "head": tied})
    np.sum(tied).backward()
    run.step()
    assert tied.data[0] == 0.5


@pytest.mark.parametrize("groups", [False, True])
def test_clipping_is_by_the_length_of_all_gradients_together(groups):
    model = {"a": Tensor(np.zeros(2)), "b": Tensor(np.zeros(1, np.float32))}
    optimizer = Groups({"a": SGD(lr=1.0), "b": SGD(lr=1.0)}) if groups else SGD(lr=1.0)
    run = training_run(optimizer, model, clip=1.0)
    np.sum(model["a"] * np.array([3.0, 0.0])).backward()
    np.sum(model["b"] * np.float32(4.0)).backward()
    run.step()
    np.testing.assert_allclose(model["a"].data, [-0.6, 0])
    np.testing.assert_allclose(model["b"].data, [-0.8], rtol=1e-6)
    np.sum(model["a"] * np.array([0.3, 0.0])).backward()
    run.step()  # short ones are left alone
    np.testing.assert_allclose(model["a"].data, [-0.9, 0])
    with pytest.raises(ValueError, match="clip must be above 0, got 0"):
        training_run(SGD(lr=1.0), model, clip=0)


def test_the_length_of_float16_gradients_does_not_overflow():
    p = Tensor(np.ones(4, np.float16))
    p.grad = np.full(4, 200, np.float16)
    training_run(SGD(lr=0.5), p, clip=1.0).step()
    np.testing.assert_array_equal(p.data, 0.75)


def test_schedules_compare_and_scale():
    assert (
        cosine_schedule(0.1, steps=10)
        == cosine_schedule(0.1, steps=10)
        != linear_schedule(0.1, steps=10)
    )
    faster = Adam(lr=cosine_schedule(0.1, steps=10)).times(3)
    assert faster.lr(0) == pytest.approx(0.3)
    assert Adam(lr=0.1).times(2) == Adam(lr=0.2)


@pytest.mark.peers
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}])
def test_sgd_with_clipping_is_torchs(settings):
    import torch

    rng = np.random.default_rng(0)
    start_at, target = rng.normal(size=(2, 7))
    ours, theirs = Tensor(start_at), torch.tensor(start_at, requires_grad=True)
    run = training_run(SGD(lr=0.05, **settings), ours, clip=0.5)
    other = torch.optim.SGD([theirs], lr=0.05, **settings)
    for _ in range(20):
        np.sum(np.square(ours - target)).backward()
        run.step()
        other.zero_grad()
        torch.square(theirs - torch.tensor(target)).sum().backward()
        torch.nn.utils.clip_grad_norm_([theirs], 0.5)
        other.step()
    np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("rng", range(5))
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_the_equation_of_the_paper(rng, decay):
    """Algorithm 1 of Kingma and Ba, and algorithm 2 of Loshchilov and Hutter, as they are
    printed.
    """
    rng = np.random.default_rng(rng)
    lr, beta1, beta2, eps = (
        rng.uniform(1e-3, 1),
        rng.uniform(0, 0.99),
        rng.uniform(0, 0.999),
        10.0 ** rng.uniform(-9, -2),
    )
    theta, m, v = rng.normal(size=5), np.zeros(5), np.zeros(5)
    leaf = Tensor(theta)
    settings = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps}
    run = training_run(AdamW(**settings, weight_decay=decay) if decay else Adam(**settings), leaf)
    for t in range(1, 30):
        g = rng.normal(size=5) * 10.0 ** rng.uniform(-6, 3)
        leaf.grad = g.copy()
        run.step()
        theta = theta - lr * decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        theta = theta - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
        np.testing.assert_allclose(leaf.data, theta, rtol=1e-9, atol=1e-12)
