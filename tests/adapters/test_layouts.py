"""Layouts: fused and separate projections and experts are the same update, in every direction."""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import AdapterModule
from lora_np.adapters.layouts import laid_out
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models import open_base

PREFIX = "base_model.model."
SIZES = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 32}
PHI = {**SIZES, "model_type": "phi3", "num_key_value_heads": 2, "intermediate_size": 12}
LLAMA = {**PHI, "model_type": "llama"}
NEOX = {**SIZES, "model_type": "gpt_neox", "intermediate_size": 12}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 3}
QWEN = {
    **LLAMA, "model_type": "qwen3_moe", "num_experts": 3, "moe_intermediate_size": 6, "head_dim": 4,
}  # fmt: skip
DELTA = {
    **SIZES, "model_type": "qwen3_5_text", "num_key_value_heads": 2, "intermediate_size": 12,
    "linear_key_head_dim": 4, "linear_value_head_dim": 6, "linear_num_key_heads": 2,
    "linear_num_value_heads": 2, "full_attention_interval": 2,
}  # fmt: skip


def update(rng, d, k, dtype="float32", *, rslora=False):
    rank = int(rng.integers(1, 4))
    A, B = rng.standard_normal((rank, k)), rng.standard_normal((d, rank))
    return AdapterModule.of(A=A, B=B, alpha=float(rng.integers(1, 9)), rslora=rslora, dtype=dtype)


def adapter_of(rng, modules):
    """An adapter of these modules, half of the time with scales over the root of the rank."""
    rslora = bool(rng.integers(2))
    updates = {x.name: update(rng, *x.shape, rslora=rslora) for x in modules}
    return adapters.Adapter(updates, raw={"peft_type": "LORA", "use_rslora": rslora})


def of_linear(rng, config, ends):
    """An adapter of the modules of a base that end so."""
    modules = (x for x in open_base(config).spec.modules if x.name.endswith(ends))
    return adapter_of(rng, modules)


def of_experts(rng, config, share=1.0):
    """An adapter of single experts, perhaps not of all, as transformers 4 had them."""
    modules = [x for x in open_base(config).spec.per_expert().modules if ".experts." in x.name]
    some = [x for x in modules if rng.random() < share] or modules[:1]
    return adapter_of(rng, some)


def assert_same_updates(found, wanted):
    assert {name for name in found if found.delta(name).any()} == {*wanted}
    for name in wanted:
        np.testing.assert_allclose(found.delta(name), wanted.delta(name), rtol=1e-5, atol=1e-5)


def by_peft(folder, tensors, **config):
    """A folder of PEFT."""
    folder.mkdir()
    tensors = {f"{PREFIX}{key}": np.asarray(x, np.float32) for key, x in tensors.items()}
    safetensors.save(tensors, folder / "adapter_model.safetensors")
    raw = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": [], **config}
    (folder / "adapter_config.json").write_text(json.dumps(raw))
    return folder


@pytest.mark.parametrize("seed", range(2))
def test_projections_are_fused_and_taken_apart_again(seed, tmp_path):
    rng = np.random.default_rng(seed)
    parts = of_linear(rng, LLAMA, ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "o_proj"))
    adapters.save(parts, tmp_path / "parts")
    told = adapters.convert(tmp_path / "parts", tmp_path / "whole", to="peft", base=PHI)
    assert told.notes[0] == "12 modules of the adapter became 6 of phi3"
    whole = adapters.load(tmp_path / "whole", base=PHI)
    for name, joined in (("self_attn.qkv", "qkv"), ("mlp.gate_up", ("gate", "up"))):
        at = f"model.layers.1.{name.partition('.')[0]}"
        each = [parts.delta(f"{at}.{part}_proj") for part in joined]
        np.testing.assert_allclose(
            whole.delta(f"model.layers.1.{name}_proj"), np.concatenate(each), rtol=1e-5, atol=1e-5
        )
        ranks = sum(parts[f"{at}.{part}_proj"].rank for part in joined)
        assert whole[f"model.layers.1.{name}_proj"].rank == ranks
    adapters.convert(tmp_path / "whole", tmp_path / "again", to="peft", base=LLAMA)
    again = adapters.load(tmp_path / "again")
    assert_same_updates(again, parts)
    assert {n: x.rank for n, x in again.items()} == {n: x.rank for n, x in parts.items()}


@pytest.mark.parametrize("config", [MIXTRAL, QWEN], ids=lambda config: config["model_type"])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_experts_are_fused_and_taken_apart_again(config, share, tmp_path):
    for seed in range(2):
        single = of_experts(np.random.default_rng(seed), config, share)
        folder = tmp_path / str(seed)
        folder.mkdir()
        adapters.save(single, folder / "single")
        adapters.convert(folder / "single", folder / "fused", to="peft", base=config)
        fused = adapters.load(folder / "fused")
        assert all(module.parameter for module in fused.values())
        assert {*fused.raw["target_parameters"]} == {*fused}
        adapters.convert(folder / "fused", folder / "vllm", to="vllm", base=config)
        assert_same_updates(adapters.load(folder / "vllm"), single)
        assert (
            json.loads((folder / "vllm" / "adapter_config.json").read_text())["rank_pattern"] == {}
        )


def test_a_factor_that_the_parts_share_is_kept_once():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((2, 16))
    at = "model.layers.0.self_attn"
    rows = {"q": 16, "k": 8, "v": 8}
    parts = {
        f"{at}.{part}_proj": AdapterModule.of(A=A, B=rng.standard_normal((d, 2)), alpha=4.0)
        for part, d in rows.items()
    }
    whole, moved = laid_out(adapters.Adapter(parts), open_base(PHI))
    assert list(moved) == [f"{at}.qkv_proj"]
    assert whole[f"{at}.qkv_proj"].rank == 2


ORDERS = {
    # the rows of each head, or all of each part, in the order of the fused projection
    "gpt_neox": (NEOX, "gpt_neox.layers.0.attention", "query_key_value", (4, 4, 4), True),
    "bloom": ({**NEOX, "model_type": "bloom"}, "transformer.h.0.self_attention",
              "query_key_value", (4, 4, 4), True),
    "falcon": ({**NEOX, "model_type": "falcon", "new_decoder_architecture": True,
                "num_kv_heads": 2}, "transformer.h.0.self_attention", "query_key_value",
               (8, 4, 4), True),
    "one head of keys": ({**NEOX, "model_type": "falcon"}, "transformer.h.0.self_attention",
                         "query_key_value", (16, 4, 4), False),
    "gpt2": ({**SIZES, "model_type": "gpt2"}, "transformer.h.0.attn", "c_attn", (16, 16, 16),
             False),
    "qwen3_5": (DELTA, "model.layers.0.linear_attn", "in_proj_qkv", (8, 8, 12), False),
}  # fmt: skip


@pytest.mark.parametrize("case", ORDERS)
def test_rows_are_in_the_order_of_the_model(case):
    config, at, fused, sizes, by_heads = ORDERS[case]
    base = open_base(config)
    d, k = base.modules[f"{at}.{fused}"].shape
    times = d // sum(sizes) if by_heads else 1
    rng = np.random.default_rng(0)
    spelling = "in_proj_{}" if fused.startswith("in_proj") else "{}_proj"
    parts = {
        f"{at}.{spelling.format(part)}": update(rng, times * size, k)
        for part, size in zip("qkv", sizes, strict=True)
    }
    for some in (parts, dict([*parts.items()][::2])):  # without k as well
        adapter = adapters.Adapter(some)
        whole, _ = laid_out(adapter, base)
        rows = [
            adapter.delta(name) if name in some else np.zeros((times * size, k))
            for name, size in zip(parts, sizes, strict=True)
        ]
        in_groups = [x.reshape(times, size, k) for x, size in zip(rows, sizes, strict=True)]
        wanted = np.concatenate(in_groups, axis=1).reshape(d, k)
        np.testing.assert_allclose(whole.delta(f"{at}.{fused}"), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_one_part_alone_has_its_own_rows(part):
    adapter = of_linear(np.random.default_rng(1), LLAMA, (f"0.self_attn.{part}_proj",))
    whole, _ = laid_out(adapter, open_base(PHI))
    (name,), (found,) = adapter, whole
    start = {"q": 0, "k": 16, "v": 24}[part]
    delta, wanted = whole.delta(found), adapter.delta(name)
    np.testing.assert_allclose(delta[start : start + len(wanted)], wanted, rtol=1e-5)
    assert np.count_nonzero(delta) == np.count_nonzero(wanted)
    assert whole[found].rank == adapter[name].rank


FILES = {
    # as keys, shapes of B in a layer, and what else its config says
    "megatron": (("experts.gate_up_proj", "experts.down_proj"), "edr", {}),
    "megatron, by module": (
        ("experts.gate_up_proj", "experts.down_proj"), "edr",
        {"target_modules": ["gate_up_proj", "down_proj"]},
    ),
    "stacked for vllm": (("experts.base_layer", "experts"), "dre", {}),
    "stacked, by module": (("experts.base_layer", "experts"), "dre", {"target_modules": ["experts"]}),
    "flat for vllm": (("experts.base_layer", "experts"), "flat", {"target_modules": ["experts"]}),
}  # fmt: skip
ENDS = ("gate_up_proj", "down_proj")


@pytest.mark.parametrize("layout", FILES)
@pytest.mark.parametrize("command", ["convert", "repair"])
def test_files_of_stacked_experts_are_read_and_written_as_peft_has_them(layout, command, tmp_path):
    keys, order, config = FILES[layout]
    rng = np.random.default_rng(0)
    at = "model.layers.0.mlp."
    wanted, tensors = {}, {}
    for key, end, (d, k) in zip(keys, ENDS, ((24, 16), (16, 12)), strict=True):
        A, B = rng.standard_normal((3, 2, k)), rng.standard_normal((3, d, 2))
        wanted[f"{at}experts.{end}"] = 3 * B @ A
        B = B if order == "edr" else B.transpose(1, 2, 0)
        flat = order == "flat"
        tensors[f"{at}{key}.lora_A.weight"] = A.reshape(-1, k) if flat else A
        tensors[f"{at}{key}.lora_B.weight"] = B.reshape(d, -1) if flat else B
    config = config or {"target_parameters": [f"experts.{end}" for end in ENDS]}
    folder = by_peft(tmp_path / "given", tensors, **config)
    assert not adapters.check(folder, runtime="peft", base=MIXTRAL).fine
    with pytest.warns(UserWarning, match="experts stacked as in another program"):
        read = adapters.load(folder)
    for name, delta in wanted.items():
        np.testing.assert_allclose(read.delta(name), delta, rtol=1e-5, atol=1e-5)
    if command == "repair":
        adapters.repair(folder, tmp_path / "new", base=MIXTRAL)
    else:
        with pytest.warns(UserWarning, match="experts stacked as in another program"):
            adapters.convert(folder, tmp_path / "new", to="peft")
    again = adapters.load(tmp_path / "new")  # without a warning
    assert {*again} == {*wanted}
    assert len(again.raw["target_parameters"]) == 2
    for name, delta in wanted.items():
        np.testing.assert_allclose(again.delta(name), delta, rtol=1e-5, atol=1e-5)
    assert adapters.check(tmp_path / "new", runtime="peft", base=MIXTRAL).fine


def test_repair_joins_what_the_base_fuses(tmp_path):
    adapters.save(of_linear(np.random.default_rng(0), LLAMA, ("q_proj", "v_proj")), tmp_path / "a")
    found = adapters.check(tmp_path / "a", runtime="peft", base=PHI)
    assert {row.status for row in found.rows} == {"ignored", "refused"}
    assert found.notes[-1].startswith("what would help: lora-np repair")
    rows = adapters.repair(tmp_path / "a", tmp_path / "b", base=PHI).rows
    at = "model.layers.0.self_attn"
    assert (rows[0].name, rows[0].before) == (f"{at}.qkv_proj", f"{at}.q_proj, {at}.v_proj")
    assert all(row.norm == pytest.approx(row.norm_before) for row in rows)
    assert adapters.check(tmp_path / "b", runtime="peft", base=PHI).fine


def changed(adapter, **changes):
    """The adapter with another first module."""
    name = min(adapter)
    return adapters.Adapter({**adapter, name: AdapterModule.of(**changes)}, raw=adapter.raw)


def dora(parts):
    one = parts[min(parts)]
    return changed(parts, A=one.A, B=one.B, alpha=1.0, magnitude=np.ones(len(one.B)))


def with_bias(parts):
    one = parts[min(parts)]
    return changed(parts, A=one.A, B=one.B, alpha=1.0, bias=np.ones(len(one.B)))


def replaced(parts):
    copy = adapters.adapter.in_memory(np.ones(8, np.float32))
    raw = {"peft_type": "LORA", "bias": "lora_only"}
    return adapters.Adapter({**parts}, {f"{min(parts)}.bias": copy}, raw)


REFUSED = {
    # what is not exact, why, and the command that comes next
    "a magnitude": (dora, "has a magnitude (DoRA), which cannot be joined or split",
                    "lora-np convert --to lora --tolerance 0.01 --base MODEL"),
    "a bias of B": (with_bias, "has a bias of B, which cannot be joined or split", "lora-np merge"),
    "a trained bias": (replaced, "is also replaced", "lora-np merge"),
    "another shape": (
        lambda parts: changed(parts, A=np.ones((1, 16)), B=np.ones((9, 1)), alpha=1.0),
        "has 32 rows, but its parts have [16, 9, 8]", "use the right base",
    ),
    "other inputs": (
        lambda parts: changed(parts, A=np.ones((1, 9)), B=np.ones((8, 1)), alpha=1.0),
        "a part is 8 x 9, not 8 x 16", "not the same base",
    ),
    "PiSSA": (lambda parts: adapters.Adapter({**parts}, raw={**parts.raw, "init_lora_weights": "pissa"}),
              "takes the first B A out of the base", "lora-np convert --to lora --base MODEL"),
    "both": (
        lambda parts: adapters.Adapter({**parts, "model.layers.0.self_attn.qkv_proj": update(
            np.random.default_rng(0), 32, 16)}),
        "is adapted both as a whole and in parts", "programs allow only one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_exact_is_refused_with_the_next_command(case, tmp_path):
    spoiled, why, after = REFUSED[case]
    parts = of_linear(
        np.random.default_rng(0), LLAMA, tuple(f"0.self_attn.{x}_proj" for x in "qkv")
    )
    with pytest.raises(FileError) as refused:
        adapters.convert(spoiled(parts), tmp_path / "new", to="peft", base=PHI)
    assert why in str(refused.value)
    assert after in str(refused.value)
    assert not (tmp_path / "new").exists()


def test_parts_of_unknown_size_are_refused():
    at = "model.layers.0.linear_attn"
    adapter = adapters.Adapter({f"{at}.in_proj_q": update(np.random.default_rng(0), 8, 16)})
    with pytest.raises(
        FileError, match=r"has 28 rows, but its parts have .*: adapt all of its parts"
    ):
        laid_out(adapter, open_base(DELTA))


def test_experts_for_vllm_need_a_base(tmp_path):
    fused, _ = laid_out(of_experts(np.random.default_rng(0), QWEN), open_base(QWEN), apart=False)
    with pytest.raises(FileError, match="depend on the base: pass --base MODEL"):
        adapters.convert(fused, tmp_path / "new", to="vllm")


def test_names_of_other_families_are_not_guessed():
    """The rows of a fused projection are known of described families only."""
    adapter = of_linear(np.random.default_rng(0), LLAMA, ("q_proj",))
    same, moved = laid_out(adapter, open_base({**LLAMA, "model_type": "mistral"}))
    assert (same, moved) == (adapter, {})


def test_types_that_differ_are_not_rounded():
    rng = np.random.default_rng(0)
    at = "model.layers.0.mlp"
    parts = {
        f"{at}.gate_proj": update(rng, 12, 16, "bfloat16"),
        f"{at}.up_proj": update(rng, 12, 16, "float32"),
    }
    whole, _ = laid_out(adapters.Adapter(parts), open_base(PHI))
    assert {part.dtype for part in whole[f"{at}.gate_up_proj"].parts.values()} == {"float32"}
