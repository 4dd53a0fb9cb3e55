"""All of LoRA in one file: it computes what the package computes."""

import re
import runpy
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
    lines = len(Path(mini.__file__).read_text(encoding="utf-8").splitlines())
    assert lines <= 160
    root = Path(__file__).parents[1]
    for page in ["docs/learn/mini.md", "README.md"]:
        assert f"{lines} lines" in (root / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", range(20))
def test_a_step_is_the_package_s(seed):
    layer, x, y = problem(seed)
    model = ours(layer)
    np.testing.assert_allclose(layer(x).value, lnp.value(model(x)), rtol=1e-12, atol=1e-12)

    mini.train(layer, x, y, lr=0.1, steps=3)
    result = lnp.fit(model, x, y, optimizer=lnp.SGD(lr=0.1), steps=3, progress=False).model
    np.testing.assert_allclose(layer.A.value, lnp.value(result.A), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(layer.B.value, lnp.value(result.B), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(layer.W0 + layer.delta(), lnp.merge(result).W, rtol=1e-9, atol=1e-11)


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
    mini.save(layer, tmp_path, name="layers.0")
    adapter = lnp.adapters.load(tmp_path)
    assert_near(adapter.delta("layers.0"), layer.delta(), floor=4)


@pytest.mark.peers
def test_peft_opens_the_file(tmp_path):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    layer, x, _ = problem(3)
    mini.save(layer, tmp_path, name="0")
    base = torch.nn.Sequential(torch.nn.Linear(*layer.W0.shape[::-1], bias=False))
    base[0].weight.data = torch.tensor(layer.W0, dtype=torch.float32)
    tuned = peft.PeftModel.from_pretrained(base, tmp_path)
    with torch.no_grad():
        seen = tuned(torch.tensor(x, dtype=torch.float32))
    assert_as_near(seen, np.float32(layer(x).value), layer(x).value)


def test_it_runs_and_finds_what_can_be_found(capsys):
    runpy.run_path(mini.__file__, run_name="__main__")
    first, *ranks = capsys.readouterr().out.splitlines()
    assert "12,000 numbers" in first
    assert "1,760 numbers" in ranks[-2]
    assert "4,400 numbers" in ranks[-1]
    page = Path(__file__).parents[1] / "docs" / "learn" / "mini.md"
    assert "\n".join([first, *ranks]) in page.read_text(encoding="utf-8")
    for line in ranks:
        trained, best = (float(share) for share in re.findall(r"([0-9.]+)%", line))
        assert best <= trained < best + 1
