"""All of LoRA in one file: it computes what the package computes."""

import re
import runpy
import time
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from lora_np import mini
from tests.rounding import assert_as_near, assert_near


def problem(seed):
    rng = np.random.default_rng(seed)
    d, k, r = rng.integers(1, 7, size=3)
    W0, x, y = rng.normal(size=(d, k)), rng.normal(size=(9, k)), rng.normal(size=(9, d))
    layer = mini.LoRA(W0, r=int(r), alpha=float(rng.integers(1, 9)), rng=rng)
    layer.B.value = rng.normal(size=(d, r)) * (seed % 2)  # as it starts, and as it is later
    return layer, x, y


def ours(layer):
    A, B = lnp.Tensor(layer.A.value.copy()), lnp.Tensor(layer.B.value.copy())
    return lnp.lora.LoRALinear(lnp.Linear(layer.W0), A, B, layer.alpha)


def test_it_can_be_read_in_ten_minutes():
    text = Path(mini.__file__).read_text(encoding="utf-8").splitlines()
    lines = len(text)
    assert lines <= 160
    assert max(map(len, text)) <= 88
    root = Path(__file__).parents[1]
    for page in ["docs/learn/mini.md", "README.md"]:
        assert f"{lines} lines" in (root / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", range(20))
def test_a_step_is_the_package_s(seed):
    layer, x, y = problem(seed)
    model = ours(layer)
    np.testing.assert_allclose(layer(x).value, lnp.value(model(x)), rtol=1e-12, atol=1e-12)

    mini.train([layer.A, layer.B], lambda: (layer(x) - y).mean_square(), lr=0.1, steps=3)
    result = lnp.fit(model, x, y, optimizer=lnp.SGD(lr=0.1), steps=3, progress=False).model
    np.testing.assert_allclose(layer.A.value, lnp.value(result.A), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(layer.B.value, lnp.value(result.B), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(layer.W0 + layer.delta(), lnp.merge(result).W, rtol=1e-9, atol=1e-11)


def drawn_program(rng):
    """Matrices, and a function that computes one more from them with the operations of the file."""
    n, m = rng.integers(1, 4, size=2)
    shapes = [(n, m), (1, m), (n, 1), (1, 1), (m,), ()]
    leaves = [rng.normal(size=shapes[i]) for i in rng.integers(len(shapes), size=4)]
    leaves[0], frozen = rng.normal(size=(n, m)), rng.integers(2, size=4) == 1
    frozen[0] = False
    steps = rng.integers(7, size=8), rng.integers(100, size=(8, 2))

    def program(values):
        known = list(values)
        for step, (i, j) in zip(*steps, strict=True):
            a, b = known[i % len(known)], known[j % len(known)]
            if step == 3:
                known.append(-a)
            elif step < 3:
                known.append((a + b, a - b, a * b)[step])
            elif step == 6:
                known.append(a / (i - 50.5))
            else:  # of matrices alone
                square = known[0].T @ (known[0] * a) if step == 4 else known[0] @ known[0].T
                known.append(known[0] @ square if step == 4 else square @ known[0])
        return known[-1] + known[-2] * 0.5 + known[0]

    return leaves, frozen, program


def test_gradients_are_the_package_s_on_drawn_programs():
    """With every way to broadcast, arrays on either side, and inputs that are used twice."""
    rng, reached = np.random.default_rng(44), 0
    for _ in range(1_000):
        leaves, frozen, program = drawn_program(rng)
        here = [x if f else mini.Tensor(x) for x, f in zip(leaves, frozen, strict=True)]
        there = [x if f else lnp.Tensor(x.copy()) for x, f in zip(leaves, frozen, strict=True)]
        result, expected = program(here).mean_square(), np.mean(program(there) ** 2)
        result.backward()
        expected.backward()
        np.testing.assert_allclose(result.value, lnp.value(expected), rtol=1e-10)
        for a, b, f in zip(here, there, frozen, strict=True):
            if not f and b.grad is not None:
                reached += 1
                scale = 1e-10 * np.abs(lnp.value(b.grad)).max(initial=0)
                assert np.shape(a.grad) == b.shape
                np.testing.assert_allclose(a.grad, lnp.value(b.grad), rtol=1e-9, atol=scale)
    assert reached > 200


def test_a_diamond_of_depth_forty_is_walked_once():
    x = y = mini.Tensor(np.ones((1, 1)))
    for _ in range(40):
        y = y + y
    y.backward()
    assert x.grad == 2.0**40


def test_a_sum_of_three_thousand_tensors_is_walked_without_a_search():
    """In the order of creation, backwards, whatever the shape of the computation."""
    rng = np.random.default_rng(5)
    known = [mini.Tensor(np.ones((1, 1)))]
    for _ in range(3_000):
        known.append(known[-1] + known[rng.integers(len(known))] * 0.0)
    made = known[-1].history()
    assert set(known) <= set(made)
    assert [one.order for one in made] == sorted({one.order for one in made})
    started = time.process_time()
    known[-1].backward()
    assert time.process_time() - started < 1
    assert known[0].grad == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_method_gets_a_tensor_as_itself(seed, monkeypatch):
    """An array on the left is no Tensor: A @ T is the transpose of T.T @ A.T."""
    rng = np.random.default_rng(seed)
    n, m, k = rng.integers(1, 5, size=3)
    A, T = rng.normal(size=(n, m)), mini.Tensor(rng.normal(size=(m, k)))
    asked, product = [], mini.Tensor.__matmul__
    monkeypatch.setattr(
        mini.Tensor, "__matmul__", lambda self, other: (asked.append(self), product(self, other))[1]
    )
    result = A @ T
    np.testing.assert_allclose(result.value, A @ T.value, rtol=1e-13)
    result.backward()
    np.testing.assert_allclose(T.grad, A.T @ np.ones((n, k)), rtol=1e-13)
    assert asked
    assert all(isinstance(one, mini.Tensor) for one in asked)


def test_a_tensor_shows_its_numbers():
    assert repr(mini.Tensor(np.array([[1.0, 2.0]])) / 2) == "Tensor([[0.5 1. ]])"


def test_a_second_walk_adds_to_the_gradient():
    x = mini.Tensor(np.array([[3.0]]))
    loss = (x * x).mean_square()
    loss.backward()
    loss.backward()
    assert x.grad == 2 * 4 * 27


def test_the_rank_of_whole_numbers():
    assert mini.rank(np.array([[1, 2], [2, 4]])) == 1
    assert mini.rank(np.zeros((2, 3), int)) == 0


def test_it_reads_its_own_file(tmp_path):
    layer, *_ = problem(5)
    mini.save({"q_proj": layer}, tmp_path)
    A, B, alpha = mini.load(tmp_path)
    assert_near(alpha / len(A) * B @ A, layer.delta(), floor=4)


def test_gradients_add_up_along_all_paths():
    a = mini.Tensor(np.array([[2.0]]))
    (a @ a + a + a * 3.0).mean_square().backward()  # of (a^2 + 4 a)^2
    assert a.grad == 2 * (4 + 8) * (2 * 2 + 4)


@pytest.mark.parametrize("seed", range(10))
def test_rank_and_cut_are_the_package_s(seed):
    rng = np.random.default_rng(seed)
    M = rng.normal(size=(6, 3)) @ rng.normal(size=(3, 5))
    assert mini.rank(M) == lnp.matrix_rank(M) == 3
    B, A = mini.best(M, 2)
    np.testing.assert_allclose(B @ A, np.matmul(*lnp.low_rank_factors(M, rank=2)), atol=1e-12)


def test_the_file_is_an_adapter(tmp_path):
    layer, *_ = problem(1)
    mini.save({"layers.0": layer}, tmp_path)
    adapter = lnp.adapters.load(tmp_path)
    assert_near(adapter.delta("layers.0"), layer.delta(), floor=4)


@pytest.mark.peers
def test_peft_opens_the_file(tmp_path):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    layer, x, _ = problem(3)
    mini.save({"0": layer}, tmp_path)
    base = torch.nn.Sequential(torch.nn.Linear(*layer.W0.shape[::-1], bias=False))
    base[0].weight.data = torch.tensor(layer.W0, dtype=torch.float32)
    tuned = peft.PeftModel.from_pretrained(base, tmp_path)
    with torch.no_grad():
        seen = tuned(torch.tensor(x, dtype=torch.float32))
    assert_as_near(seen, np.float32(layer(x).value), layer(x).value)


def test_it_runs_and_finds_what_can_be_found(capsys):
    runpy.run_path(mini.__file__, run_name="__main__")
    shown = capsys.readouterr().out
    first, *ranks, same, truncated = shown.splitlines()
    assert "12,000 parameters" in first
    assert "to rank 54" in first
    assert "1,760 parameters" in ranks[-2]
    assert "4,400 parameters" in ranks[-1]
    assert same == "Same after a file: True"
    assert "to rank 4: 0.29%" in truncated
    assert "0.29% of dW missing" in ranks[-1]
    page = Path(__file__).parents[1] / "docs" / "learn" / "mini.md"
    assert shown in page.read_text(encoding="utf-8")
    for line in ranks:
        trained, best = (float(share) for share in re.findall(r"([0-9.]+)%", line))
        assert best <= trained < best + 1
