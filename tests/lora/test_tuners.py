"""PEFT's tuners: formulas against PEFT, exact factors, conversion, counts, and what is refused."""

import importlib.util
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from lora_np import Tensor, accounting
from lora_np.lora import TUNERS
from lora_np.lora.tuners import cayley
from tests.drawing import every

ROOT = Path(__file__).parents[2]
# By the row: PEFT's class, and settings for matrices of 12 and 16.
SETTINGS = {
    "ADALORA": ("AdaLoraConfig", [{"init_r": 3, "total_step": 9}, {"init_r": 2, "lora_alpha": 5, "total_step": 9}]),
    "LOHA": ("LoHaConfig", [{"r": 2, "alpha": 3}, {"r": 1}, {"r": 4, "alpha": 16}]),
    "LOKR": (
        "LoKrConfig",
        [
            {"r": 1, "alpha": 3},
            {"r": 8},
            {"r": 1, "decompose_factor": 5},
            {"r": 2, "decompose_factor": 3},
        ],
    ),
    "VERA": ("VeraConfig", [{"r": 4}, {"r": 1}]),
    "IA3": ("IA3Config", [{"feedforward_modules": ["down"]}, {"feedforward_modules": ".*up"}]),
    "OFT": (
        "OFTConfig",
        [
            {"oft_block_size": 4},
            {"oft_block_size": 4, "use_cayley_neumann": False},
            {"r": 4, "oft_block_size": 0, "num_cayley_neumann_terms": 3},
            {"oft_block_size": 2, "num_cayley_neumann_terms": 2},
        ],
    ),
}  # fmt: skip
CASES = [
    (kind, settings) for kind, (_, all_of_them) in SETTINGS.items() for settings in all_of_them
]
EXACT = sorted(kind for kind in SETTINGS if TUNERS[kind].factors)


def rng_of(*key):
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def example(kind, d, k, seed=0, **settings):
    """Tensors of a row by name, all of them random, and the settings, a weight and its shape."""
    tuner, rng = TUNERS[kind], rng_of(kind, d, k, seed)
    small = {"r": 2, "init_r": 2, "oft_block_size": 2}
    own = {
        name: small[name]
        for name in small
        if name in tuner.settings and (kind, name) != ("OFT", "r")
    }
    own |= settings
    shapes = dict(tuner.trained(d, k, **own))
    if kind == "VERA":
        shapes |= {"A": (2, k + 1), "B": (d + 2, 2)}
    tensors = {name: 0.5 * rng.normal(size=shape) for name, shape in shapes.items()}
    return tensors, own, rng.normal(size=(d, k))


def delta_of(tuner, tensors, W, settings):
    return tuner.delta(tensors, W=W, shape=W.shape, **settings)


SMALL = [(4, 6), (6, 4), (8, 8), (2, 12)]


@every("kind", EXACT)
@every("shape", SMALL)
def test_exact_factors_are_the_update(kind, shape):
    tuner = TUNERS[kind]
    for seed in range(2):
        tensors, settings, W = example(kind, *shape, seed)
        B, A = tuner.lora(tensors, shape=shape, **settings)
        assert (B.shape[0], A.shape[1]) == shape
        assert len(A) == tuner.count_directions(*shape, **settings)
        np.testing.assert_allclose(B @ A, delta_of(tuner, tensors, W, settings), atol=1e-12)


def plainly(kind, t, W, s):
    """Updates as their papers define them, with plain matrices."""
    d, k = W.shape
    if kind == "VERA":
        return np.diag(t["lambda_b"]) @ t["B"][:d] @ np.diag(t["lambda_d"]) @ t["A"][:, :k]
    if kind == "LOKR":
        w2 = t["w2"] if "w2" in t else t["w2_a"] @ t["w2_b"]
        return s.get("alpha", 8) / s["r"] * np.kron(t["w1"], w2)
    if kind == "LOHA":
        return 8 / 2 * (t["w1_a"] @ t["w1_b"]) * (t["w2_a"] @ t["w2_b"])
    if kind == "ADALORA":
        return 8 / 2.00001 * t["B"] @ np.diag(t["E"][:, 0]) @ t["A"]
    R = np.eye(k)  # OFT
    for i, x in enumerate(t["weight"][:, 0]):
        Q = np.array([[0, x], [-x, 0]])
        R[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = (
            np.eye(2) + 2 * Q + 2 * Q @ Q + 2 * Q @ Q @ Q + Q @ Q @ Q @ Q
        )
    return W @ R.T - W


@every("kind", ["VERA", "LOHA", "LOKR", "ADALORA", "OFT"])
@every("shape", SMALL)
def test_products_are_what_their_definitions_say(kind, shape):
    tensors, settings, W = example(kind, *shape)
    found = delta_of(TUNERS[kind], tensors, W, settings)
    np.testing.assert_allclose(found, plainly(kind, tensors, W, settings), atol=1e-12)


@every("kind", sorted(SETTINGS))
@every("shape", SMALL[:2])
def test_gradients_flow_through_every_formula(kind, shape):
    tuner = TUNERS[kind]
    tensors, settings, W = example(kind, *shape)
    if kind == "OFT":
        settings["use_cayley_neumann"] = False
    pull, step = rng_of(kind).normal(size=shape), 1e-6

    def loss(name, tensor):
        return (delta_of(tuner, {**tensors, name: tensor}, W, settings) * pull).sum()

    for name in tuner.trained(*shape, **settings):
        leaf = Tensor(tensors[name])
        loss(name, leaf).backward()
        push = rng_of(kind, name).normal(size=leaf.shape)
        ends = [loss(name, tensors[name] + sign * step * push) for sign in (1, -1)]
        np.testing.assert_allclose(
            (leaf.grad * push).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6
        )


def test_terms_of_the_series_as_peft_counts_them():
    Q = np.array([[0.0, 0.1], [-0.1, 0.0]])
    powers = [np.linalg.matrix_power(Q, n) for n in range(6)]
    for terms, coefficients in {
        1: [1],
        2: [1, 2],
        3: [1, 2, 2, 1],
        4: [1, 2, 2, 1],
        5: [1, 2, 2, 2, 1],
    }.items():
        wanted = sum(c * P for c, P in zip(coefficients, powers, strict=False))
        np.testing.assert_allclose(cayley(Q, terms), wanted)


def test_counts_on_one_matrix():
    assert TUNERS["LORA"].count(100, 120, r=8) == accounting.count_lora(100, 120, rank=8) == 1760
    assert TUNERS["LORA use_dora"].count(100, 120, r=8) == accounting.count_lora(
        100, 120, rank=8, dora=True
    )
    assert TUNERS["VERA"].count(256, 768) == 512
    assert TUNERS["LOHA"].count(256, 768) == 16_384
    assert TUNERS["LOKR"].count(256, 768) == 768
    assert TUNERS["OFT"].count(256, 768) == 11_904
    # the divisor that is closest to the block size, the smaller one of two
    assert TUNERS["OFT"].trained(1, 12, oft_block_size=5) == {"weight": (3, 6)}
    assert TUNERS["OFT"].trained(1, 4304) == {"weight": (4304 // 16, 120)}
    # divisors: up to a factor that does not divide
    assert TUNERS["LOKR"].trained(12, 36, r=99, decompose_factor=3) == {"w1": (3, 3), "w2": (4, 12)}
    assert TUNERS["LOKR"].trained(14, 36, r=99, decompose_factor=5) == {"w1": (2, 4), "w2": (7, 9)}
    assert TUNERS["LOKR"].trained(14, 36, r=99) == {"w1": (2, 6), "w2": (7, 6)}


def test_what_acts_on_the_weight_asks_for_it():
    assert {kind for kind, tuner in TUNERS.items() if tuner.weight} == {
        "LORA use_dora", "IA3", "OFT",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"\(IA\)\^3 depends on the base weight: pass W"):
        TUNERS["IA3"].delta({"l": np.ones((2, 1))}, shape=(2, 3))
    with pytest.raises(ValueError, match="OFT is not a LoRA: its update has no factors"):
        TUNERS["OFT"].lora({"weight": np.ones((1, 1))}, shape=(2, 2))


def test_the_page_says_what_the_table_says():
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("family", ROOT / "docs" / "_ext" / "family.py")
    family = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(family)
    rows = family.table().split('<tr><th scope="row">')[1:]
    assert len(rows) == len(TUNERS)
    for (kind, row), shown in zip(TUNERS.items(), rows, strict=True):
        own = family.settings(kind, row)
        numbers = row.count(100, 120, **own)
        assert f"<td>{numbers:,}</td>" in shown
        assert (f"exact, rank {row.rank}" in shown) == bool(row.rank)
        assert not row.rank or row.factors
        drawn = re.findall(r'class="part"[^>]*width="(\d+)" height="(\d+)"', shown)
        assert len(drawn) >= len(row.trained(100, 120, **own))
