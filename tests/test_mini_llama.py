"""A Llama in one file: it computes what `lora_np.language` computes, and learns by the same gradients."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters, language, mini_llama, value
from lora_np.hub import directory, safetensors
from lora_np.mini_llama import Llama
from lora_np.nn import leaves

ROOT = Path(__file__).parents[1]
PATH = ROOT / "lora_np" / "mini_llama.py"


def with_adapter(name):
    """Both models with an adapter, or without."""
    model, ours = Llama(directory("austen")), language.load("austen")
    if name:
        adapter = adapters.load(language.located_adapter(name))
        config, factors = adapter_of(name)
        model.adapt(r=config["r"], alpha=config["lora_alpha"], rng=np.random.default_rng(0))
        for path, layer in model.layers.items():  # those that it leaves out keep B = 0
            for factor, p in (("A", layer.A), ("B", layer.B)):
                p.value = factors.get(f"base_model.model.{path}.lora_{factor}.weight", p.value)
        ours = adapters.attach(ours, adapter)
    return model, ours


def adapter_of(name):
    folder = language.located_adapter(name)
    file = safetensors.open(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    return config, {key: np.array(file.read(key)) for key in file.tensors}


@pytest.mark.parametrize("adapter", ["", "genesis-by-peft", "king-james"])
@pytest.mark.parametrize("text", ["A", "It is a truth universally acknowledged, that\n" * 5])
def test_logits_are_the_package_s(adapter, text):
    model, ours = with_adapter(adapter)
    ids = model.read(text)[None]
    expected = value(ours(ids))[0]
    assert np.abs(model(ids).value - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_the_package_s(seed):
    rng = np.random.default_rng(seed)
    texts, n, r = (int(size) for size in rng.integers([1, 2, 1], [5, 70, 9]))
    model = Llama(directory("austen"))
    model.adapt(r=r, alpha=float(rng.integers(1, 9)), rng=rng)
    alpha = next(iter(model.layers.values())).alpha
    ours = lnp.inject(language.load("austen"), rank=r, alpha=alpha, targets="all-linear", rng=seed)
    theirs = dict(leaves(ours))
    for path, layer in model.layers.items():
        layer.B.value = rng.normal(size=layer.B.value.shape).astype("f4") / 20
        for factor, p in (("A", layer.A), ("B", layer.B)):
            value(theirs[f"{path}.{factor}"])[...] = p.value
    ids = rng.integers(len(model.ids), size=(texts, n + 1))
    loss, expected = model.loss(ids), language.token_loss(ours, ids)
    assert loss.value.item() == pytest.approx(value(expected).item(), rel=1e-5)
    loss.backward()
    expected.backward()
    for path, layer in model.layers.items():
        for factor, p in (("A", layer.A), ("B", layer.B)):
            g = value(theirs[f"{path}.{factor}"].grad)
            assert p.grad.shape == g.shape
            assert np.abs(p.grad - g).max() < 1e-4 * np.abs(g).max(), path


def test_a_step_moves_each_matrix_by_the_learning_rate():
    """Each gradient is divided by its root mean square; without that its size would count."""
    model, rng = Llama(directory("austen")), np.random.default_rng(0)
    parameters = model.adapt(r=2, alpha=4, rng=rng)
    before = [p.value for p in parameters]
    ids = model.read(language.read_text("genesis"))
    next(mini_llama.finetune(model, ids, parameters, steps=2, lr=0.5, rng=rng, texts=2, n=16))
    sizes = [np.sqrt(np.mean((p.value - b) ** 2)) for p, b in zip(parameters, before, strict=True)]
    np.testing.assert_allclose(sizes[1::2], 0.5, rtol=1e-3)  # B
    assert not any(sizes[::2])  # A: its gradient is zero as long as B is
    assert all(p.value.dtype == np.float32 for p in parameters)


def test_it_can_be_read_and_needs_numpy_alone():
    text = PATH.read_text(encoding="utf-8").splitlines()
    assert len(text) <= 250
    assert max(map(len, text)) <= 88
    imported = {line.split()[1] for line in text if line.startswith(("import ", "from "))}
    assert {name for name in imported if name not in sys.stdlib_module_names} == {"numpy"}
    page = (ROOT / "docs" / "learn" / "mini-llama.md").read_text(encoding="utf-8")
    assert f"{len(text)} lines" in page


@pytest.mark.parametrize("arguments", [[], ["one"], ["one", "two", "three", "four"]])
def test_without_arguments_it_says_how_to_run_it(arguments):
    ended = subprocess.run(
        [sys.executable, PATH, *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "python mini_llama.py MODEL BOOK [PROMPT]" in ended.stderr
    assert "Traceback" not in ended.stderr
