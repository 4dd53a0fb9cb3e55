"""Whatever is saved, `load` reads back as it was; whatever it would not is refused before anything
is written.
"""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import Stored, in_memory
from lora_np.files import FileError
from tests.drawing import examples

A, B = np.ones((2, 3)), np.ones((4, 2))

names = st.one_of(
    st.text(max_size=6),
    st.lists(
        st.sampled_from(["model", "0", "1", "q", "lora_A", "lora_B", "lora_embedding_A", "base_layer", "",
                         "modules_to_save", "q\n", "a+(b", "embed_tokens", "weight", "bias", "default"]),
        min_size=1, max_size=4,
    ).map(".".join),
)  # fmt: skip
alphas = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0, -0.0, 1e-300, 2.0**63, -(2**63), 10**400]),
)
rare = st.sampled_from([False, False, False, True])
sizes = st.sampled_from([1, 2, 3, 3, 2, 1, 0])
arrays = st.sampled_from([np.float16, np.float32, np.float64, ">f8"])


@st.composite
def modules(draw):
    r, k, d, other = (draw(sizes) for _ in range(4))
    dtype = draw(arrays)
    rng = np.random.default_rng(draw(st.integers(0, 9)))

    def array(*shape):
        return (9 * rng.standard_normal(shape)).astype(dtype)

    optional = draw(st.sampled_from([(), (), ("magnitude",), ("bias",), ("magnitude", "bias")]))
    return {
        "A": array(r, k),
        "B": array(d, draw(st.sampled_from([r] * 9 + [other]))),
        "alpha": draw(alphas),
        "rslora": draw(rare),
        "embedding": draw(rare),
        **{part: array(draw(st.sampled_from([d] * 9 + [other]))) for part in optional},
    }


settings_of_all = st.fixed_dictionaries(
    {"peft_type": st.just("LORA")},
    optional={
        "use_rslora": rare,
        "use_dora": rare,
        "lora_bias": rare,
        "r": st.integers(0, 3),
        "lora_alpha": alphas,
        "rank_pattern": st.dictionaries(names, st.integers(1, 3), max_size=1),
        "target_modules": st.none() | st.none() | st.lists(names, max_size=2),
        "modules_to_save": st.lists(names, max_size=2) | st.none(),
        "bias": st.sampled_from(["none", "all"]),
        "revision": st.text(max_size=3) | st.floats(),
    },
)


def same(one, two):
    assert one.keys() == two.keys()
    for name, stored in one.items():
        assert (stored.dtype, stored.shape) == (two[name].dtype, two[name].shape)
        np.testing.assert_array_equal(stored.read(), two[name].read())


def check(parts, full, raw):
    """Whether it was saved. If so, it comes back; if not, nothing is left."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            adapter = Adapter(
                {name: AdapterModule.of(**part) for name, part in parts.items()}, full, raw
            )
            adapters.save(adapter, Path(folder) / "a")
        except (ValueError, TypeError):
            assert os.listdir(folder) == []
            return False
        found = adapters.load(Path(folder) / "a")
        assert found.keys() == adapter.keys()
        for name, module in adapter.items():
            for what in ("alpha", "rslora", "embedding", "rank", "shape", "scale"):
                assert getattr(found[name], what) == getattr(module, what)
            same(module.parts, found[name].parts)
        same(full, found.full)
        return True


full_names = (
    st.sampled_from(["embed_tokens.weight", "m.lm_head.weight", "q.weight", "1.bias"]) | names
)
fulls = st.just({}) | st.dictionaries(full_names, st.just(in_memory(np.arange(3.0))), max_size=2)


@settings(deadline=None, max_examples=examples(300))
@given(st.dictionaries(names, modules(), min_size=1, max_size=2), fulls, settings_of_all)
def test_what_is_saved_is_read_back_equal(parts, full, raw):
    check(parts, full, raw)


@settings(deadline=None, max_examples=examples(100))
@given(
    st.dictionaries(names, alphas, min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_what_is_sound_is_mostly_saved_and_read_back_equal(found, rslora, dora, lora_bias):
    parts = {
        name: {"A": np.ones((rank, 3)), "B": np.ones((4, rank)), "alpha": alpha, "rslora": rslora}
        | ({"magnitude": np.ones(4)} if dora else {})
        | ({"bias": np.ones(4)} if lora_bias else {})
        for rank, (name, alpha) in enumerate(found.items(), 1)
    }
    raw = {"peft_type": "LORA", "use_rslora": rslora, "use_dora": dora, "lora_bias": lora_bias}
    own = ("lora_", "base_layer")  # PEFT's names of its own modules
    plain = all(
        n and n.isascii() and n.isprintable() and not any(name in n for name in own) for n in parts
    )
    saved = check(parts, {}, raw)
    assert saved or not plain or any(not abs(alpha) < 2**63 for alpha in found.values())


MODULES = {
    "factors that do not fit": (
        {"B": np.ones((4, 3))},
        ValueError,
        r"A \(r, k\) and B \(d, r\) must fit, got \(2, 3\) and \(4, 3\)",
    ),
    "rank 0": ({"A": np.ones((0, 3)), "B": np.ones((4, 0))}, ValueError, "must not be empty, got"),
    "a vector": ({"A": np.ones(3)}, ValueError, r"must fit, got \(3,\)"),
    "no B": ({"B": None}, TypeError, "B must hold floating-point numbers, got dtype object"),
    "no A": (
        {"A": None, "B": None},
        TypeError,
        "A must hold floating-point numbers, got dtype object",
    ),
    "whole numbers": ({"A": np.ones((2, 3), int)}, TypeError, "A must hold .*, got dtype int"),
    "ragged lists": ({"A": [[1.0], [1.0, 2.0]]}, ValueError, "A must be an array"),
    "a bias of the wrong length": (
        {"bias": np.ones(3)},
        ValueError,
        r"bias must have shape \(4,\), got \(3,\)",
    ),
    "a magnitude with two axes": (
        {"magnitude": np.ones((4, 1))},
        ValueError,
        r"shape \(4,\), got \(4, 1\)",
    ),
    "alpha that is NaN": ({"alpha": np.nan}, ValueError, "alpha must be finite, got nan"),
    "infinite alpha": ({"alpha": np.inf}, ValueError, "alpha must be finite, got inf"),
    "alpha beyond floats": ({"alpha": 10**400}, ValueError, "alpha must be finite, got 1000"),
    "alpha beyond what is read": (
        {"alpha": 2.0**63},
        ValueError,
        r"alpha must be between -2\*\*63 and 2\*\*63",
    ),
    "alpha that is text": ({"alpha": "x"}, TypeError, "alpha must be a number, got 'x'"),
    "alpha that is true": ({"alpha": True}, TypeError, "alpha must be a number, got True"),
    "an unknown dtype": ({"dtype": "F32"}, ValueError, "dtype must be 'float32', not 'F32'"),
}


@pytest.mark.parametrize(("change", "error", "message"), MODULES.values(), ids=MODULES)
def test_arrays_that_make_no_module_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        AdapterModule.of(**{"A": A, "B": B, "alpha": 1.0, **change})


def test_lists_become_arrays():
    module = AdapterModule.of(A=[[1.0, 2.0]], B=[[3.0]], bias=[4.0], alpha=1)
    assert (module.rank, module.shape, module.bias.tolist()) == (1, (1, 2), [4.0])


PLAIN = AdapterModule.of(A=A, B=B, alpha=1)
ADAPTERS = {
    "no module": ({}, {}, "an adapter needs at least one module, got none"),
    "a module with PEFT's own name": ({"lora_A": PLAIN}, {}, "without parts such as lora_A; got 'lora_A'"),
    "a path through such a name": ({"m.lora_B.q": PLAIN}, {}, "got 'm.lora_B.q'"),
    "a name that is a number": ({1: PLAIN}, {}, "got 1"),
    "a name that is no text": ({"\ud800": PLAIN}, {}, "(?i)utf-8"),
    "a module without factors": ({"q": AdapterModule({}, 1.0)}, {}, "'q' has no A"),
    "alpha that is text": ({"q": AdapterModule(PLAIN.parts, "x")}, {}, "must be real number, not str"),
    "factors that do not fit": (
        {"q": AdapterModule({**PLAIN.parts, "B": in_memory(np.ones((4, 3)))}, 1.0)}, {}, "of 'q' must fit, got",
    ),
    "whole numbers": (
        {"q": AdapterModule({**PLAIN.parts, "A": Stored("I64", (2, 3), lambda: np.ones((2, 3), int))}, 1.0)}, {},
        "A of 'q' is stored as I64",
    ),
    "scaling that the settings do not know": (
        {"q": AdapterModule.of(A=A, B=B, alpha=1, rslora=True)}, {}, "'q' has rslora True, but the settings make it False",
    ),
    "a magnitude that the settings do not know": (
        {"q": AdapterModule.of(A=A, B=B, alpha=1, magnitude=np.ones(4))}, {}, "has a magnitude, but use_dora is false",
    ),
    "an embedding with a bias": (
        {"q": AdapterModule.of(A=A, B=B, alpha=1, bias=np.ones(4), embedding=True)}, {}, "'q' has a bias, which PEFT",
    ),
    "targets that leave a module out": ({"q": PLAIN}, {"target_modules": ["v"]}, "not among the config's target_mod"),
    "a setting that is not finite": ({"q": PLAIN}, {"revision": np.nan}, "the settings are not JSON"),
    "a setting that is no JSON": ({"q": PLAIN}, {"revision": {1, 2}}, "the settings are not JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "raw", "message"), ADAPTERS.values(), ids=ADAPTERS)
def test_adapters_that_would_not_be_read_are_not_written(tmp_path, parts, raw, message):
    with pytest.raises(FileError, match=message) as caught:
        adapters.save(Adapter(parts, raw={"peft_type": "LORA", **raw}), tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_parameters_in_full_that_would_not_be_read_are_not_written(tmp_path):
    full = {"q.lora_A.weight": in_memory(np.ones((2, 3)))}
    with pytest.raises(FileError, match=r"names that would not be read: 'q.lora_A.weight'"):
        adapters.save(Adapter({"q": PLAIN}, full), tmp_path / "a")
    with pytest.raises(FileError, match="belongs to no LoRA, modules_to_save or trained bias"):
        adapters.save(Adapter({"q": PLAIN}, {"head.weight": in_memory(np.ones(3))}), tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_the_config_is_json_for_everyone(tmp_path):
    adapters.save(Adapter({"q": AdapterModule.of(A=A, B=B, alpha=0.1)}), tmp_path / "a")
    json.loads((tmp_path / "a" / "adapter_config.json").read_text(), parse_constant=pytest.fail)
