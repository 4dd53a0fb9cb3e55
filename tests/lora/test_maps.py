"""PEFT's tuners as maps: formulas against PEFT, exact factors, conversion, counts, and what is refused."""

import json
import zlib

import numpy as np
import pytest

from lora_np import Tensor, accounting, adapters
from lora_np.hub import HubError, safetensors
from lora_np.lora import MAPS
from tests.drawing import every, few

SHAPES = [(16, 12), (12, 16), (12, 12)]
# By the row: PEFT's class, and settings for matrices of 12 and 16.
SETTINGS = {
    "ADALORA": ("AdaLoraConfig", [{"init_r": 3, "total_step": 9}, {"init_r": 2, "lora_alpha": 5, "total_step": 9}]),
    "LOHA": ("LoHaConfig", [{"r": 2, "alpha": 3}, {"r": 1}, {"r": 4, "alpha": 16}]),
    "LOKR": (
        "LoKrConfig",
        [
            {"r": 1, "alpha": 3},
            {"r": 8},
            {"r": 1, "decompose_both": True, "decompose_factor": 4},
            {"r": 1, "decompose_factor": 5},
            {"r": 2, "decompose_factor": 3},
        ],
    ),
    "VERA": ("VeraConfig", [{"r": 4}, {"r": 1}]),
    "VBLORA": (
        "VBLoRAConfig",
        [
            {"r": 2, "num_vectors": 8, "vector_length": 4},
            {"r": 3, "num_vectors": 5, "vector_length": 2, "topk": 3},
            {"r": 2, "num_vectors": 8, "vector_length": 4, "save_only_topk_weights": True},
        ],
    ),
    "TINYLORA": ("TinyLoraConfig", [{}, {"u": 7, "r": 3}, {"u": 16, "weight_tying": 0.5}, {"weight_tying": 1.0}]),
    "DELORA": ("DeloraConfig", [{"r": 3}, {"r": 1, "delora_lambda": 4}]),
    "MISS": (
        "MissConfig",
        [{"r": 4}, {"r": 5}, {"r": 3, "init_weights": "mini", "mini_r": 2}, {"r": 5, "init_weights": False}],
    ),
    "MISS bat": ("MissConfig", [{"r": 4, "init_weights": "bat"}, {"r": 2, "init_weights": "bat"}]),
    "PSOFT": (
        "PsoftConfig",
        [
            {"r": 3},
            {"r": 3, "ab_svd_init": "pissa_init", "use_cayley_neumann": True, "cayley_neumann_eps": 0.5},
            {"r": 2, "psoft_orth": False, "psoft_mag_a": False},
            {"r": 4, "psoft_mag_b": False, "use_cayley_neumann": True, "num_cayley_neumann_terms": 3},
        ],
    ),
    "HRA": ("HRAConfig", [{"r": 3}, {"r": 2, "apply_GS": True}]),
    "FOURIERFT": ("FourierFTConfig", [{"n_frequency": 3}, {"n_frequency": 30, "scaling": 7.0, "random_loc_seed": 5}]),
    "RANDLORA": ("RandLoraConfig", [{"r": 5}, {"r": 4, "randlora_alpha": 20}, {"r": 3, "sparse": True}]),
    "C3A": ("C3AConfig", [{"block_size": 4}, {"block_size": 2}]),
    "SHIRA": ("ShiraConfig", [{"r": 1}, {"r": 2, "random_seed": 3}]),
    "IA3": ("IA3Config", [{"feedforward_modules": ["down"]}, {"feedforward_modules": ".*up"}]),
    "OFT": (
        "OFTConfig",
        [
            {"oft_block_size": 4},
            {"oft_block_size": 4, "use_cayley_neumann": False},
            {"oft_block_size": 5},
            {"r": 4, "oft_block_size": 0, "num_cayley_neumann_terms": 3},
            {"oft_block_size": 2, "num_cayley_neumann_terms": 2},
            {"oft_block_size": 4, "coft": True, "eps": 0.1, "block_share": True},
        ],
    ),
    "BOFT": ("BOFTConfig", [{"boft_block_size": 4}, {"boft_block_size": 0, "boft_block_num": 2}]),
    "ROAD": ("RoadConfig", [{"variant": f"road_{n}", "group_size": size} for n, size in ((1, 4), (2, 2), (4, 4))]),
}  # fmt: skip
CASES = [(kind, settings) for kind, (_, all_of_them) in SETTINGS.items() for settings in all_of_them]
DISGUISED = sorted(kind for kind in SETTINGS if MAPS[kind].factors)


def rng_of(*key):
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def example(kind, d, k, seed=0, **settings):
    """Tensors of a row by name, all of them random, and the settings, a weight and its shape."""
    row, rng = MAPS[kind], rng_of(kind, d, k, seed)
    small = {"r": 2, "init_r": 2, "num_vectors": 5, "vector_length": 2, "u": 3, "n_frequency": 3, "block_size": 2,
             "oft_block_size": 2, "boft_block_size": 2, "group_size": 2}  # fmt: skip
    own = {name: small[name] for name in small if name in row.settings and (kind, name) != ("OFT", "r")}
    own |= settings
    shapes = dict(row.trained(d, k, **own))
    shapes |= {
        "VERA": {"A": (2, k + 1), "B": (d + 2, 2)},
        "VBLORA": {"vector_bank": (5, 2)},
        "TINYLORA": {"B": (d, 2), "A": (2, k), "P": (3, 2, 2), "v": (3,)},
        "DELORA": {"w_norm": (k,)},
        "RANDLORA": {"A": (2, 1, max(d, k)), "B": (max(d, k) + 1, max(d, k), 2)},
    }.get(kind, {})
    tensors = {name: 0.5 * rng.normal(size=shape) for name, shape in shapes.items()}
    if kind == "SHIRA":
        places = rng.permutation(d * k)[: shapes["weight"][0]]
        tensors["indices"] = np.stack(np.divmod(places, k))
    return tensors, own, rng.normal(size=(d, k))


SMALL = [(4, 6), (6, 4), (8, 8), (2, 12)]


@every("kind", DISGUISED)
@every("shape", SMALL)
def test_exact_factors_are_the_update(kind, shape):
    row = MAPS[kind]
    for seed in range(2):
        tensors, settings, W = example(kind, *shape, seed)
        B, A = row.lora(tensors, W=W, **settings)
        assert (B.shape[0], A.shape[1]) == shape and B.shape[1] == A.shape[0]
        np.testing.assert_allclose(B @ A, row.delta(tensors, W=W, **settings), atol=1e-12)


def plainly(kind, t, W, s):
    """The updates whose formulas are only factors, entry by entry."""
    d, k = W.shape
    if kind == "MISS":
        return np.array([[t["block"][j % len(t["block"]), i % t["block"].shape[1]] for j in range(k)] for i in range(d)])
    if kind == "VERA":
        return np.diag(t["lambda_b"]) @ t["B"][:d] @ np.diag(t["lambda_d"]) @ t["A"][:, :k]
    if kind == "LOKR":
        return s.get("alpha", 8) / s["r"] * np.kron(t.get("w1"), t["w2"] if "w2" in t else t["w2_a"] @ t["w2_b"])
    if kind == "TINYLORA":
        return t["B"] @ sum(v * P for v, P in zip(t["v"], t["P"], strict=True)) @ t["A"]
    if kind == "ADALORA":
        return 8 / 2.00001 * t["B"] @ np.diag(t["E"][:, 0]) @ t["A"]
    if kind == "FOURIERFT":
        from lora_np.lora.updates import random_places

        S = np.zeros(d * k)
        S[random_places(d * k, len(t["spectrum"]), 777)] = t["spectrum"]
        return 150 * np.fft.ifft2(S.reshape(d, k)).real
    return None


@every("kind", ["MISS", "VERA", "LOKR", "TINYLORA", "ADALORA", "FOURIERFT"])
@every("shape", SMALL)
def test_products_are_what_their_definitions_say(kind, shape):
    tensors, settings, W = example(kind, *shape)
    found = MAPS[kind].delta(tensors, W=W, **settings)
    np.testing.assert_allclose(found, plainly(kind, tensors, W, settings), atol=1e-12)


@every("kind", sorted(SETTINGS))
@every("shape", SMALL[:2])
def test_gradients_flow_through_every_formula(kind, shape):
    row = MAPS[kind]
    tensors, settings, W = example(kind, *shape)
    if kind == "OFT":
        settings["use_cayley_neumann"] = False
    pull, step = rng_of(kind).normal(size=shape), 1e-6
    for name in row.trained(*shape, **settings):
        leaf = Tensor(tensors[name])
        (row.delta({**tensors, name: leaf}, W=W, **settings) * pull).sum().backward()
        push = rng_of(kind, name).normal(size=leaf.shape)
        ends = [
            (row.delta({**tensors, name: tensors[name] + sign * step * push}, W=W, **settings) * pull).sum()
            for sign in (1, -1)
        ]
        np.testing.assert_allclose((leaf.grad * push).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)


def test_counts_on_one_matrix():
    assert MAPS["LORA"].count(100, 120, r=8) == accounting.count_lora(100, 120, rank=8) == 1760
    assert MAPS["LORA use_dora"].count(100, 120, r=8) == accounting.count_lora(100, 120, rank=8, dora=True)
    assert MAPS["VERA"].count(256, 768) == 512
    assert MAPS["LOHA"].count(256, 768) == 16_384
    assert MAPS["LOKR"].count(256, 768) == 768
    assert MAPS["OFT"].count(256, 768) == 11_904
    assert MAPS["C3A"].count(256, 768) == 768


def test_what_a_file_may_leave_out_is_known_by_the_row():
    assert {kind for kind, row in MAPS.items() if row.needs("W")} == {
        "LORA use_dora", "MISS bat", "PSOFT", "HRA", "IA3", "OFT", "BOFT", "ROAD",
    }  # fmt: skip
    assert {kind for kind, row in MAPS.items() if row.needs("shape")} == {
        "VERA", "MISS", "RANDLORA", "FOURIERFT", "SHIRA",
    }  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """Write a base of the modules up (16, 12), with a bias, and down (12, 16), and an adapter for it."""

    def write(kind, settings=(), seed=0, **raw):
        rng = rng_of(kind, seed)
        weights = {"up": rng.normal(size=(16, 12)), "down": rng.normal(size=(12, 16))}
        base, folder = tmp_path / f"base{seed}", tmp_path / f"{kind}{seed}".replace(" ", "-")
        for each in (base, folder):
            each.mkdir(exist_ok=True)
        (base / "config.json").write_text("{}")
        named = {f"{name}.weight": W for name, W in weights.items()} | {"up.bias": rng.normal(size=16)}
        safetensors.save(named, base / "model.safetensors")
        tensors, row = {}, MAPS[kind]
        for name, W in weights.items():
            own, found, _ = example(kind, *W.shape, seed, **dict(settings))
            tensors |= {f"base_model.model.{name}.{row.key(each)}": x for each, x in own.items()}
        for each, x in {"VERA": {"A": (2, 16), "B": (16, 2)}, "VBLORA": {"vector_bank": (5, 2)}}.get(kind, {}).items():
            tensors = {key: value for key, value in tensors.items() if not key.endswith(f".{row.key(each)}")}
            tensors[f"base_model.{row.key(each)}"] = rng.normal(size=x)
        if kind == "TINYLORA":
            tensors = {key: value for key, value in tensors.items() if not key.endswith("_v")}
            tensors["base_model.tinylora_v.0"] = rng.normal(size=3)
            found["weight_tying"] = 1.0
        if kind == "MISS bat":
            found["init_weights"] = "bat"
        config = {"peft_type": kind.split()[0], "target_modules": ["up", "down"], **found, **raw}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        safetensors.save(tensors, folder / "adapter_model.safetensors")
        return base, folder, named

    return write


KINDS = sorted(SETTINGS)
WIDE = {"MISS": {"r": 3}, "FOURIERFT": {"n_frequency": 4}}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_the_weight_of_the_formula_and_as_lora_too(kind, written, tmp_path):
    base, folder, named = written(kind)
    opened = adapters.load(folder)
    adapters.merge(base, folder, tmp_path / "merged", any_base=True)
    as_lora = adapters.to_lora(folder, base=base, error=0.0, any_base=True)
    adapters.save(as_lora, tmp_path / "lora")
    adapters.merge(base, tmp_path / "lora", tmp_path / "merged-too", any_base=True)
    one, two = (safetensors.open(tmp_path / name / "model.safetensors") for name in ("merged", "merged-too"))
    for name in named:
        np.testing.assert_allclose(one.read(name), two.read(name), atol=1e-5)
        if name.endswith("weight"):
            module, W = opened[name.removesuffix(".weight")], named[name]
            tensors = {each: part.read() for each, part in module.parts.items()}
            wanted = module.row.delta(tensors, W=W, **module.settings)
            np.testing.assert_allclose(one.read(name), W + wanted, atol=1e-9)
            assert np.abs(wanted).max() > 1e-3
    moved = not np.array_equal(one.read("up.bias"), named["up.bias"])
    assert moved == (kind in ("IA3", "ROAD"))
    found = adapters.inspect(folder, base=base, any_base=True)
    assert found.contents["type"] == MAPS[kind].name and all(row.status == "ok" for row in found.rows)
    assert adapters.diff(folder, folder, base=base).same
    assert adapters.diff(folder, tmp_path / "lora", base=base).largest < 1e-5 or moved


@every("kind", DISGUISED)
def test_what_is_a_lora_in_disguise_needs_no_error(kind):
    pass
