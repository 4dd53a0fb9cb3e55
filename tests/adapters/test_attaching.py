"""From our models to the disk and back: the same function, the same trained parts, nothing lost in
silence.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters
from lora_np.files import FileError
from lora_np.hub import rounded, safetensors
from lora_np.lora import rebase
from lora_np.nn import Embedding

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 6))


def network():
    rng = np.random.default_rng(1)
    layers = [
        lnp.Linear.init(d_out=8, d_in=6, rng=rng, bias=True),
        lnp.Activation(np.tanh),
        lnp.Linear.init(d_out=7, d_in=8, rng=rng, bias=True),
        lnp.Linear.init(d_out=3, d_in=7, rng=rng),
    ]
    return lnp.Sequential(layers)


def shaken(model):
    """Every trained array moved to where training may have brought it."""
    rng = np.random.default_rng(2)
    return lnp.replace(
        model,
        lnp.Tensor,
        lambda path, a: lnp.Tensor(lnp.value(a) + 0.3 * rng.standard_normal(a.shape)),
    )


OPTIONS = {
    "plain": {},
    "rslora": {"variant": "rslora", "alpha": 3},
    "lora-fa": {"variant": "lora-fa"},
    "dora": {"variant": "dora"},
    "biases of adapted layers": {
        "bias": "lora_only",
        "targets": lambda path, layer: path != "layers.2",
    },
    "all biases": {"bias": "all", "targets": lambda path, layer: path != "layers.2"},
    "dora and biases": {"variant": "dora", "bias": "lora_only"},
    "a trained head": {"train": ["layers.3"], "dropout": 0.25},
    "a trained layer with its bias": {"train": ["layers.2"]},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_model_comes_back_as_it_was(tmp_path, options):
    base = network()
    model = shaken(lnp.inject(base, rank=2, rng=np.random.default_rng(3), **options))
    adapters.save(model, tmp_path / "adapter")
    loaded = adapters.load(tmp_path / "adapter")
    assert loaded.raw["bias"] == options.get("bias", "none")
    back = adapters.attach(base, loaded)
    np.testing.assert_allclose(lnp.freeze(back)(X), lnp.freeze(model)(X), rtol=1e-14)
    np.testing.assert_allclose(lnp.merge(back)(X), lnp.merge(model)(X), rtol=1e-14)
    adapters.save(back, tmp_path / "again")
    assert adapters.diff(tmp_path / "adapter", tmp_path / "again", tolerance=1e-12).same


def test_attached_adapters_train_on(tmp_path):
    base = network()
    model = lnp.inject(base, rank=2, rng=RNG, dropout=0.5)
    adapters.save(model, tmp_path / "adapter")
    back = adapters.attach(base, adapters.load(tmp_path / "adapter"))
    assert [path for path, _ in lnp.trainable(back)] == [path for path, _ in lnp.trainable(model)]
    assert back.layers[0].dropout == 0.5
    y = RNG.standard_normal((5, 3))
    result = lnp.fit(back, X, y, optimizer=lnp.Adam(lr=1e-2), steps=3, progress=False)
    assert not np.array_equal(lnp.freeze(result.model)(X), lnp.freeze(back)(X))


def test_an_embedding_comes_back(tmp_path):
    base = lnp.Sequential(
        [Embedding(RNG.standard_normal((9, 4))), lnp.Linear(RNG.standard_normal((2, 4)))]
    )
    model = shaken(lnp.inject(base, rank=2, rng=RNG, targets=lambda path, layer: True))
    adapters.save(model, tmp_path / "adapter")
    tokens = np.array([0, 8, 3])
    back = adapters.attach(base, adapters.load(tmp_path / "adapter"))
    np.testing.assert_array_equal(lnp.freeze(back)(tokens), lnp.freeze(model)(tokens))
    assert adapters.load(tmp_path / "adapter")["layers.0"].embedding


@pytest.mark.parametrize("variant", ["pissa", "olora"])
def test_variants_that_move_the_base_are_saved_against_the_original(tmp_path, variant):
    base = network()
    model = shaken(lnp.inject(base, rank=2, rng=RNG, variant=variant))
    with pytest.raises(FileError, match=r"the base of layers\.0 is not W0 any more.*rebase"):
        adapters.save(model, tmp_path / "adapter")
    adapters.save(rebase(model, base), tmp_path / "adapter")
    back = adapters.attach(base, adapters.load(tmp_path / "adapter"))
    np.testing.assert_allclose(lnp.freeze(back)(X), lnp.freeze(model)(X), rtol=1e-10)
    assert {module.rank for module in adapters.load(tmp_path / "adapter").values()} == {4}


def test_a_bias_of_b_is_trained_at_its_own_scale(tmp_path):
    layer = lnp.Linear(np.zeros((2, 3)))
    module = adapters.AdapterModule.of(
        A=np.ones((1, 3)), B=np.ones((2, 1)), bias=np.array([1.0, 2.0]), alpha=3.0
    )
    adapter = adapters.Adapter(
        {"linear": module},
        raw={"peft_type": "LORA", "lora_bias": True, "target_modules": ["linear"]},
    )
    model = adapters.attach(layer, adapter)
    np.testing.assert_allclose(lnp.freeze(model)(np.ones(3)), [12.0, 15.0])  # 3 (1 1^T 1 + b)
    np.testing.assert_allclose(lnp.merge(model)(np.ones(3)), [12.0, 15.0])
    model(np.ones(3)).sum().backward()
    np.testing.assert_array_equal(model.c.grad, [3.0, 3.0])
    adapters.save(model, tmp_path / "adapter")
    again = adapters.load(tmp_path / "adapter")
    assert (again.raw["lora_bias"], again.raw["bias"]) == (True, "none")
    np.testing.assert_array_equal(again["linear"].bias, [1.0, 2.0])


def test_names_translate_both_ways(tmp_path):
    base = network()

    def peft_name(path):
        return path.replace("layers.", "model.block_")

    adapters.save(
        shaken(lnp.inject(base, rank=1, rng=RNG)),
        tmp_path / "adapter",
        names=peft_name,
        base="org/model",
    )
    adapter = adapters.load(tmp_path / "adapter")
    assert list(adapter) == ["model.block_0", "model.block_2", "model.block_3"]
    assert adapter.raw["base_model_name_or_path"] == "org/model"
    adapters.attach(base, adapter, names=peft_name)
    with pytest.raises(FileError, match=r"the model has no 'model.block_0'.*it has layers.0"):
        adapters.attach(base, adapter)


@pytest.mark.parametrize(
    ("dtype", "size"), [("float64", 8), ("float32", 4), ("float16", 2), ("bfloat16", 2)]
)
def test_numbers_are_rounded_when_asked(tmp_path, dtype, size):
    model = shaken(lnp.inject(network(), rank=2, rng=RNG))
    adapters.save(model, tmp_path / "adapter", dtype=dtype)
    expected = rounded(lnp.value(model.layers[0].B), dtype)
    np.testing.assert_array_equal(adapters.load(tmp_path / "adapter")["layers.0"].B, expected)


def test_the_config_always_says_rank_and_alpha(tmp_path):
    """PEFT would assume 8 and 8 in silence."""
    adapters.save(
        lnp.inject(lnp.Linear(np.zeros((9, 8))), rank=8, alpha=8, rng=RNG), tmp_path / "adapter"
    )
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 8)


class Refused:
    """Models and adapters that do not go together, and what is said of them."""

    @staticmethod
    def two_kinds():
        base = network()
        mixed = lnp.inject(base, rank=1, rng=RNG, targets=lambda path, layer: path == "layers.0")
        dora = lnp.inject(
            base, rank=1, rng=RNG, variant="dora", targets=lambda path, layer: path == "layers.2"
        )
        return lnp.Sequential([mixed.layers[0], dora.layers[2]])

    @staticmethod
    def trained_base():
        layer = lnp.inject(lnp.Linear(np.eye(2)), rank=1, rng=RNG)
        return lnp.LoRALinear(lnp.Linear(lnp.Tensor(np.eye(2))), layer.A, layer.B, 1.0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (network, "no LoRA adapters"),
        (Refused.two_kinds, "'layers.0' has no magnitude, but use_dora is true"),
        (Refused.trained_base, "base.W: PEFT's format cannot express"),
    ],
)
def test_what_the_format_can_not_hold_is_refused(tmp_path, model, message):
    with pytest.raises(FileError, match=message):
        adapters.save(model(), tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            {"A": np.ones((1, 3)), "B": np.ones((5, 1))},
            r"'linear' adapts a linear layer of shape \(5, 3\)",
        ),
        ({"A": np.ones((1, 3)), "B": np.ones((2, 1)), "embedding": True}, "adapts an embedding"),
        (
            {"A": np.ones((1, 3)), "B": np.ones((2, 1)), "alpha": -4.0},
            "alpha of 'linear' must be above 0, got -4.0",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_the_model_is_refused(module, message):
    adapter = adapters.Adapter({"linear": adapters.AdapterModule.of(**{"alpha": 1.0, **module})})
    with pytest.raises(FileError, match=message):
        adapters.attach(lnp.Linear(np.zeros((2, 3))), adapter)


@pytest.mark.parametrize("ending", [".gguf", ".safetensors"])
def test_a_copy_of_a_weight_is_left_out_only_if_the_base_has_it(tmp_path, ending):
    W = RNG.standard_normal((8, 4)).astype(np.float32)
    (tmp_path / "base").mkdir()
    safetensors.save({"lm_head.weight": W}, tmp_path / "base" / "model.safetensors")
    config = {"model_type": "llama", "hidden_size": 4, "vocab_size": 8, "num_attention_heads": 1}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    module = adapters.AdapterModule.of(A=np.ones((1, 4)), B=np.ones((8, 1)), alpha=1.0)
    for copy in (W + 1, W[:7], W):
        full = {"lm_head.weight": adapters.adapter.in_memory(copy)}
        adapter = adapters.Adapter({"lm_head": module}, full)
        if copy is not W:
            with pytest.raises(FileError, match=r"'lm_head.weight' is replaced in full"):
                adapters.save(adapter, tmp_path / f"a{ending}", base=tmp_path / "base")
    adapters.save(adapter, tmp_path / f"a{ending}", base=tmp_path / "base")
    with pytest.raises(ValueError, match="names is for a model"):
        adapters.save(adapter, tmp_path / "b", names=str.upper)


def test_two_layers_under_one_name_are_refused(tmp_path):
    with pytest.raises(FileError, match="two layers the name 'same'"):
        adapters.save(
            lnp.inject(network(), rank=1, rng=RNG), tmp_path / "a", names=lambda path: "same"
        )


def test_a_model_with_adapters_is_not_adapted_again():
    model = lnp.inject(network(), rank=1, rng=RNG)
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        adapters.attach(model, adapters.Adapter({}))


def test_a_path_is_attached_as_what_it_holds(tmp_path):
    model = lnp.inject(network(), rank=1, rng=RNG)
    adapters.save(model, tmp_path / "adapter")
    for given in (
        tmp_path / "adapter",
        str(tmp_path / "adapter"),
        adapters.load(tmp_path / "adapter"),
    ):
        attached = lnp.freeze(adapters.attach(network(), given))
        np.testing.assert_array_equal(attached(X), lnp.freeze(model)(X))
    with pytest.raises(
        TypeError, match="adapter must be a name, a path or an Adapter, got Sequential"
    ):
        adapters.attach(network(), model)


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dtype must be 'bfloat16', not 'BF16'"):
        adapters.save(lnp.inject(network(), rank=1, rng=RNG), tmp_path / "a", dtype="BF16")


def rows_of(layers, tokens=(0, 2), d=4):
    """An adapter of trained rows."""
    from lora_np.adapters.adapter import Adapter, TokenRows, in_memory

    new = np.arange(len(tokens) * d, dtype=float).reshape(-1, d)
    return Adapter(
        {}, rows={f"{layer}.weight": TokenRows(tokens, in_memory(new)) for layer in layers}
    )


def test_trained_rows_are_gathered_from_tokens_and_seen_by_a_tied_head(tmp_path):
    table = np.random.default_rng(0).normal(size=(5, 4))
    base = {"table": Embedding(table), "head": lnp.Linear(table), "other": lnp.Linear(np.eye(4))}
    model = adapters.attach(base, rows_of(["table"]))
    expected = table.copy()
    expected[[0, 2]] = np.arange(8).reshape(2, 4)
    tokens = np.array([[0, 1], [2, 2]])
    np.testing.assert_array_equal(lnp.value(model["table"](tokens)), expected[tokens])
    x = np.random.default_rng(1).normal(size=(3, 4))
    np.testing.assert_allclose(lnp.value(model["head"](x)), x @ expected.T)
    assert [path for path, _ in lnp.trainable(model)] == ["table.rows = head.rows"]
    merged = lnp.merge(model)
    np.testing.assert_array_equal(merged["table"].W, expected)
    np.testing.assert_array_equal(merged["head"].W, expected)
    adapters.save(model, tmp_path / "rows")
    again = adapters.attach(base, tmp_path / "rows")
    np.testing.assert_array_equal(lnp.freeze(again)["table"](tokens), expected[tokens])
    assert adapters.load(tmp_path / "rows").raw["trainable_token_indices"] == {"table": [0, 2]}


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (rows_of(["norm"]), "the model has no 'norm.weight'"),
        (rows_of(["nothing"]), "the model has no 'nothing.weight'"),
        (rows_of(["table"], tokens=(5,)), r"'table' of shape \(5, 4\) has no row 5 of 4 entries"),
        (rows_of(["table"], d=3), "has no row 2 of 3 entries"),
    ],
)
def test_rows_that_the_model_has_not_are_refused(adapter, words):
    base = {"table": Embedding(np.eye(5, 4)), "head": lnp.Linear(np.eye(4))}
    with pytest.raises(FileError, match=words):
        adapters.attach(base, adapter)


def test_rows_of_what_is_adapted_too_are_refused():
    module = adapters.AdapterModule.of(
        A=np.ones((1, 5)), B=np.ones((4, 1)), alpha=1.0, embedding=True
    )
    adapter = replace(rows_of(["table"]), modules={"table": module})
    with pytest.raises(FileError, match="'table' is adapted and has trained rows"):
        adapters.attach({"table": Embedding(np.eye(5, 4))}, adapter)


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps in one array, as experts are."""

    weights: Any

    def __call__(self, x, i):
        return x @ self.weights[i].T


def test_each_expert_has_factors_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    W, A, B = (rng.normal(size=shape) for shape in ((3, 5, 4), (3, 2, 4), (3, 5, 2)))
    module = replace(adapters.AdapterModule.of(A=A, B=B, alpha=6.0), parameter=True)
    base, x = {"experts": Maps(W), "linear": lnp.Linear(np.eye(4))}, rng.normal(size=(7, 4))
    model = adapters.attach(base, adapters.Adapter({"experts.weights": module}))
    assert [path for path, _ in lnp.trainable(model)] == ["experts.weights.A", "experts.weights.B"]
    merged = lnp.merge(model)
    adapters.save(model, tmp_path / "experts")
    again = adapters.attach(base, tmp_path / "experts")
    for i in range(3):
        expected = x @ (W[i] + 3 * B[i] @ A[i]).T
        for each in (model, merged, again):
            np.testing.assert_allclose(lnp.value(each["experts"](x, i)), expected)
    own = r"'experts.weights' adapts a parameter of shape \(3, 5, 4\): .* of the model's .*\(2, 5, 4\)"
    with pytest.raises(FileError, match=own):
        adapters.attach({**base, "experts": Maps(W[:2])}, tmp_path / "experts")
    router = replace(adapters.AdapterModule.of(A=A[0], B=B[0, :4], alpha=1.0), parameter=True)
    with pytest.raises(
        FileError, match=r"'linear.weight' .* attach needs experts, \(experts, d, k\)"
    ):
        adapters.attach(base, adapters.Adapter({"linear.weight": router}))
