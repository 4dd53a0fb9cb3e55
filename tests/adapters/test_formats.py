"""From each format to each other and back: the same updates, and nothing dropped."""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.formats import format_of
from lora_np.adapters.peft_format import targeting
from lora_np.hub import HubError
from lora_np.models import describe, family_names, llama_cpp_of, names_for, peft
from tests.drawing import few

SMALL = {
    "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 20, "head_dim": 4, "num_local_experts": 3,
    "num_experts": 3, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 8, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA = {"model_type": "llama", **SMALL}
SUFFIX = {"gguf": ".gguf", "kohya": ".safetensors"}


def drawn(
    config,
    *,
    seed=0,
    roles=("linear", "head"),
    ranks=(1, 2, 3, 5),
    scales=(1.0, 2.0, 0.3),
    parts=(),
    rslora=False,
):
    """An adapter of every module of these kinds, of ranks and scales that differ."""
    rng = np.random.default_rng(seed)
    modules = {}
    for module in describe(config).modules:
        parameter = module.kind in ("experts", "router")
        if module.kind not in roles or module.tied:
            continue
        for name in module.names():
            r, scale = int(rng.choice(ranks)), float(rng.choice(scales))
            *stack, d, k = module.shape[::-1] if module.kind == "embedding" else module.shape
            arrays = {"A": rng.standard_normal((*stack, r, k)), "B": rng.standard_normal((*stack, d, r))}
            arrays |= {part: rng.standard_normal(d) for part in parts}
            arrays = {part: array.astype(np.float32) for part, array in arrays.items()}
            alpha = scale * (r**0.5 if rslora else r)
            made = AdapterModule.of(
                **arrays, alpha=alpha, rslora=rslora, embedding=module.kind == "embedding"
            )
            name = f"{name}.weight" if module.kind == "router" else name
            modules[name] = AdapterModule(made.parts, made.alpha, made.rslora, made.embedding, (), parameter)
    raw = {**peft.FRESH, "use_dora": "magnitude" in parts, "use_rslora": rslora, "lora_bias": "bias" in parts}
    return Adapter(modules, raw=targeting(raw, modules))


def same(one, two, tolerance=1e-6):
    assert one.keys() == two.keys()
    for name in one:
        mine, theirs = one.delta(name), two.delta(name)
        assert mine.shape == theirs.shape
        assert np.abs(mine - theirs).max() <= tolerance * np.abs(mine).max(), name
        for part in ("magnitude", "bias"):
            assert (one[name].parts.get(part) is None) == (two[name].parts.get(part) is None)
            if part in one[name].parts:
                np.testing.assert_array_equal(getattr(one[name], part), getattr(two[name], part))
        assert (one[name].embedding, one[name].parameter) == (two[name].embedding, two[name].parameter)


EVERYTHING = {
    "linear": ("linear",),
    "embedding": ("linear", "embedding"),
    "experts": ("linear", "experts", "router"),
}
CASES = [
    (to, family, kinds, seed)
    for to, says in {"peft": EVERYTHING, "portable": EVERYTHING, "gguf": EVERYTHING, "mlx": EVERYTHING,
                     "kohya": ["linear"]}.items()
    for kinds in says
    for family in (("mixtral", "qwen3_moe", "qwen2_moe") if kinds == "experts" else ("llama", "qwen2", "gemma2"))
    for seed in range(3)
]  # fmt: skip


@pytest.mark.parametrize(("to", "family", "kinds", "seed"), few(CASES, 3))
def test_there_and_back(tmp_path, to, family, kinds, seed):
    config = {"model_type": family, **SMALL}
    adapter = drawn(config, seed=seed, roles=EVERYTHING[kinds], rslora=seed == 2)
    there, back = tmp_path / f"there{SUFFIX.get(to, '')}", tmp_path / "back"
    adapters.convert(adapter, there, to=to, base=config)
    assert format_of(there)[0] == to.replace("portable", "peft")
    same(adapter, adapters.load(there, base=config))
    adapters.convert(there, back, to="peft", base=config)
    same(adapter, adapters.load(back))


@pytest.mark.peers
def test_names_are_those_of_gguf():
    table = pytest.importorskip("gguf")
    by_name = {name: number for number, name in table.MODEL_ARCH_NAMES.items()}
    families = [name for name in family_names() if llama_cpp_of(name)]
    assert len(families) > 10
    for family in families:
        names = table.get_tensor_name_map(by_name[llama_cpp_of(family)[0]], 2)
        for module in describe({"model_type": family, **SMALL}).modules:
            for name in module.names():
                ours = names_for("llama_cpp", name, family)
                if len(ours) == 1 and module.kind != "norm" and not module.tied:
                    theirs = names.get_name(name, (".weight",))
                    if theirs is None:  # as in transformers 4
                        theirs = names.get_name(module.alias.replace("{}", name.split(".")[2]))
                    assert theirs == ours[0], (family, name)
                assert all(each.endswith("_exps") for each in ours if len(ours) > 1)


def test_dora_goes_to_mlx_and_back(tmp_path):
    adapter = drawn(LLAMA, parts=["magnitude"])
    adapters.convert(adapter, tmp_path / "mlx", to="mlx")
    assert json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())["fine_tune_type"] == "dora"
    same(adapter, adapters.load(tmp_path / "mlx"))


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        *((to, {"parts": ["bias"]}, r"'model.layers.0.self_attn.q_proj' has a bias of B, for which \w+") for to in ("gguf", "mlx", "portable", "kohya")),
        *((to, {"parts": ["magnitude"]}, r"has a magnitude \(DoRA\), for which") for to in ("gguf", "portable", "kohya")),
        ("mlx", {"parts": ["magnitude"], "roles": ["linear", "embedding"]}, "'model.embed_tokens' has an embedding"),
        ("kohya", {"roles": ["embedding"]}, "'model.embed_tokens' has an embedding"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_say_is_refused_by_name(tmp_path, to, options, message):
    out = tmp_path / f"out{SUFFIX.get(to, '')}"
    with pytest.raises(HubError, match=message):
        adapters.convert(drawn(LLAMA, **options), out, to=to, base=LLAMA)
    assert not list(tmp_path.iterdir())
