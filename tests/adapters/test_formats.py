"""From each format to each other and back: the same updates, and nothing dropped."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import in_memory
from lora_np.adapters.formats import format_of
from lora_np.adapters.peft_format import targeting
from lora_np.files import FileError
from lora_np.hub import gguf, located, safetensors
from lora_np.language import located_adapter
from lora_np.models import Dialects, describe, family_names, llama_cpp_of, peft
from tests.drawing import few
from tests.gguf_files import save_gguf
from tests.rounding import assert_as_near, assert_near

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
            arrays = {
                "A": rng.standard_normal((*stack, r, k)),
                "B": rng.standard_normal((*stack, d, r)),
            }
            arrays |= {part: rng.standard_normal(d) for part in parts}
            arrays = {part: array.astype(np.float32) for part, array in arrays.items()}
            alpha = scale * (r**0.5 if rslora else r)
            made = AdapterModule.of(
                **arrays, alpha=alpha, rslora=rslora, embedding=module.kind == "embedding"
            )
            name = f"{name}.weight" if module.kind == "router" else name
            modules[name] = AdapterModule(
                made.parts, made.alpha, made.rslora, made.embedding, (), parameter
            )
    raw = {
        **peft.FRESH,
        "use_dora": "magnitude" in parts,
        "use_rslora": rslora,
        "lora_bias": "bias" in parts,
    }
    return Adapter(modules, raw=targeting(raw, modules))


def exact(module):
    """The update of a module in float64."""
    B, A = (factor.astype(float) for factor in module.factors())
    return (module.scale * (B @ A)).reshape(module.shape)


def same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        mine, theirs = one.delta(name), two.delta(name)
        assert mine.shape == theirs.shape
        assert_as_near(theirs, mine, exact(one[name]), floor=8)
        for part in ("magnitude", "bias"):
            assert (one[name].parts.get(part) is None) == (two[name].parts.get(part) is None)
            if part in one[name].parts:
                np.testing.assert_array_equal(getattr(one[name], part), getattr(two[name], part))
        assert (one[name].embedding, one[name].parameter) == (
            two[name].embedding,
            two[name].parameter,
        )


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
    if family == "gemma2":  # llama.cpp and mlx-lm have no head of its own for it
        modules = {name: module for name, module in adapter.items() if name != "lm_head"}
        adapter = Adapter(modules, raw=targeting(adapter.raw, modules))
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
        config = {"model_type": family, **SMALL}
        del config["tie_word_embeddings"]  # as the family has it
        for module in describe(config).modules:
            for name in module.names():
                ours = Dialects({"model_type": family}).names_in("llama_cpp", name)
                if len(ours) == 1 and module.kind != "norm" and not module.tied:
                    theirs = names.get_name(name, (".weight",))
                    if theirs is None:  # as in transformers 4
                        theirs = names.get_name(module.alias.replace("{}", name.split(".")[2]))
                    assert theirs == ours[0], (family, name)
                assert all(each.endswith("_exps") for each in ours if len(ours) > 1)


def test_dora_goes_to_mlx_and_back(tmp_path):
    adapter = drawn(LLAMA, parts=["magnitude"])
    adapters.convert(adapter, tmp_path / "mlx", to="mlx")
    assert (
        json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())["fine_tune_type"]
        == "dora"
    )
    same(adapter, adapters.load(tmp_path / "mlx"))


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        *((to, {"parts": ["bias"]}, r"'model.layers.0.self_attn.q_proj' has a bias of B, which .+ cannot express") for to in ("gguf", "mlx", "portable", "kohya")),
        *((to, {"parts": ["magnitude"]}, r"has a magnitude \(DoRA\), which") for to in ("gguf", "portable")),
        ("mlx", {"parts": ["magnitude"], "roles": ["linear", "embedding"]}, "'model.embed_tokens' has an embedding"),
        ("kohya", {"roles": ["embedding"]}, "'model.embed_tokens' has an embedding"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_say_is_refused_by_name(tmp_path, to, options, message):
    out = tmp_path / f"out{SUFFIX.get(to, '')}"
    with pytest.raises(FileError, match=message):
        adapters.convert(drawn(LLAMA, **options), out, to=to, base=LLAMA)
    assert not list(tmp_path.iterdir())


def test_a_gguf_file_that_says_nothing_of_heads_needs_its_base(tmp_path, capsys):
    """As convert_lora_to_gguf.py writes it: the order of the rows of q and k is the base's."""
    adapter, path = drawn(LLAMA), tmp_path / "a.gguf"
    adapters.convert(adapter, path, to="gguf", base=LLAMA)
    file = gguf.open(path)
    metadata = {key: value for key, value in file.metadata.items() if "head_count" not in key}
    tensors = {name: file.read(name) for name in file.tensors}
    save_gguf(tensors, path, metadata=metadata)
    same(adapter, adapters.load(path, base=LLAMA))
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    same(adapter, adapters.load(path, base=tmp_path))
    none = {f"llama.attention.{key}": 0 for key in ("head_count", "head_count_kv")}
    save_gguf(tensors, path, metadata=metadata | none)
    found = adapters.load(path)
    np.testing.assert_array_equal(
        found.delta("lm_head"), adapters.load(path, base=LLAMA).delta("lm_head")
    )
    with pytest.raises(
        FileError, match=r"a.gguf: 'model.layers.0.self_attn.k_proj': .* --base MODEL"
    ):
        found.delta("model.layers.0.self_attn.k_proj")
    norms = {row.name: row.norm for row in adapters.inspect(path).rows}  # which no order changes
    for name in adapter:
        assert_near(norms[name], np.linalg.norm(exact(adapter[name])))


def test_sixteen_bits_stay_where_scales_are_powers_of_two(tmp_path):
    half = drawn(LLAMA, scales=(0.5, 2.0), ranks=(4,))
    adapters.save(half, tmp_path / "a", dtype="bfloat16")
    for to in ("portable", "mlx", "gguf"):
        out = tmp_path / f"{to}{SUFFIX.get(to, '')}"
        adapters.convert(tmp_path / "a", out, to=to, base=LLAMA)
        found = adapters.load(out)
        assert {stored.dtype for stored in found.stored} == {"bfloat16"}
        same(adapters.load(tmp_path / "a"), found)
    adapters.save(drawn(LLAMA, scales=(0.3, 2.0), ranks=(4,)), tmp_path / "b", dtype="float16")
    adapters.convert(tmp_path / "b", tmp_path / "b.gguf", to="gguf", base=LLAMA)
    found = adapters.load(tmp_path / "b.gguf")
    assert {module.parts["A"].dtype for module in found.values()} == {"float16"}
    assert {module.parts["B"].dtype for module in found.values()} == {"float16", "float32"}
    same(adapters.load(tmp_path / "b"), found)
    adapters.convert(tmp_path / "b", tmp_path / "c.gguf", to="gguf", base=LLAMA, dtype="float16")
    assert {stored.dtype for stored in adapters.load(tmp_path / "c.gguf").stored} == {"float16"}


def test_an_adapter_of_equal_scales_and_ranks_keeps_its_numbers(tmp_path):
    adapter = drawn(LLAMA, scales=(0.3,), ranks=(4,), rslora=True)
    for to in ("mlx", "gguf", "kohya", "peft"):
        out = tmp_path / f"{to}{SUFFIX.get(to, '')}"
        adapters.convert(adapter, out, to=to, base=LLAMA)
        found = adapters.load(out, base=LLAMA)
        for name, module in adapter.items():
            np.testing.assert_array_equal(found[name].A, module.A)
            np.testing.assert_array_equal(found[name].B, module.B)


def test_parts_of_experts_may_differ_or_be_missing(tmp_path):
    """llama.cpp and mlx-lm keep gate and up apart: A may differ, or one may not be adapted."""
    config = {"model_type": "qwen3_moe", **SMALL}
    adapter = drawn(config, roles=["experts"], scales=(2.0,), ranks=(2,))
    adapters.convert(adapter, tmp_path / "a.gguf", to="gguf", base=config)
    file = gguf.open(tmp_path / "a.gguf")
    tensors = {name: file.read(name) for name in file.tensors}
    tensors["blk.0.ffn_up_exps.weight.lora_a"] += 1
    del tensors["blk.1.ffn_gate_exps.weight.lora_a"], tensors["blk.1.ffn_gate_exps.weight.lora_b"]
    save_gguf(tensors, tmp_path / "a.gguf", metadata=file.metadata)
    found, scale = adapters.load(tmp_path / "a.gguf"), file.metadata["adapter.lora.alpha"] / 2
    gate, up = (
        scale
        * tensors[f"blk.0.ffn_{part}_exps.weight.lora_b"].astype(float)
        @ tensors[f"blk.0.ffn_{part}_exps.weight.lora_a"]
        for part in ("gate", "up")
    )
    wanted = np.concatenate([gate, up], axis=1)
    assert_near(found.delta("model.layers.0.mlp.experts.gate_up_proj"), wanted)
    assert found["model.layers.0.mlp.experts.gate_up_proj"].rank == 4
    half = found.delta("model.layers.1.mlp.experts.gate_up_proj")
    assert not half[:, :12].any()
    before = exact(adapter["model.layers.1.mlp.experts.gate_up_proj"])
    assert_near(half[:, 12:], before[:, 12:])


def test_kohyas_names_need_the_base_and_convolutions_stay(tmp_path):
    rng = np.random.default_rng(0)
    factors = {
        "A": in_memory(rng.standard_normal((2, 3 * 9)).astype(np.float32)),
        "B": in_memory(rng.standard_normal((4, 2)).astype(np.float32)),
    }
    modules = {
        "down_blocks.0.to_out.0": AdapterModule.of(A=np.ones((1, 3)), B=np.ones((4, 1)), alpha=0.5, dtype="float32"),
        "down_blocks.0.conv": AdapterModule(factors, 3.0, kernel=(3, 3)),
        "text_model.q_proj": AdapterModule.of(A=np.ones((1, 3)), B=np.ones((4, 1)), alpha=0.0, dtype="float32"),
    }  # fmt: skip
    adapter = Adapter(modules, raw=targeting(peft.FRESH, modules))
    adapters.convert(adapter, tmp_path / "a.safetensors", to="kohya")
    file = safetensors.open(tmp_path / "a.safetensors")
    assert file.tensors["lora_unet_down_blocks_0_conv.lora_down.weight"].shape == (2, 3, 3, 3)
    assert file.tensors["lora_unet_down_blocks_0_conv.lora_up.weight"].shape == (4, 2, 1, 1)
    assert file.read("lora_unet_down_blocks_0_conv.alpha") == 3.0
    flat = adapters.load(tmp_path / "a.safetensors")
    assert set(flat) == {
        "lora_unet_down_blocks_0_to_out_0",
        "lora_unet_down_blocks_0_conv",
        "lora_te_text_model_q_proj",
    }
    assert not flat.delta("lora_te_text_model_q_proj").any()  # alpha 0 would mean the rank
    with pytest.raises(FileError, match=r"is kohya's name, .* give the base"):
        adapters.convert(tmp_path / "a.safetensors", tmp_path / "b", to="peft")
    base = {
        f"{name}.weight": np.zeros((4, 3, 3, 3) if "conv" in name else (4, 3), np.float32)
        for name in modules
    }
    safetensors.save(base, tmp_path / "base.safetensors")
    same(adapter, adapters.load(tmp_path / "a.safetensors", base=tmp_path / "base.safetensors"))
    base["down_blocks.0.to_out_0.weight"] = base["down_blocks.0.to_out.0.weight"]
    safetensors.save(base, tmp_path / "base.safetensors")
    with pytest.raises(
        FileError, match=r"is down_blocks.0.to_out.0 or down_blocks.0.to_out_0 of the base"
    ):
        adapters.load(tmp_path / "a.safetensors", base=tmp_path / "base.safetensors")
    twice = Adapter(dict.fromkeys(("a.b_c", "a_b.c"), modules["text_model.q_proj"]))
    with pytest.raises(
        FileError, match=r"'a_b.c' and another module both become 'lora_unet_a_b_c'"
    ):
        adapters.convert(twice, tmp_path / "c.safetensors", to="kohya")


DAMAGED = {
    "gguf": [
        (lambda t, m: m.update({"general.type": "model"}), "general.type is 'model', not 'adapter'"),
        (lambda t, m: m.update({"adapter.type": "control"}), "adapter.type is 'control', not 'lora'"),
        (lambda t, m: m.update({"general.architecture": "gpt9"}), "the architecture 'gpt9' are unknown"),
        (lambda t, m: m.update({"adapter.alora.invocation_tokens": [1, 2]}), "aLoRA"),
        (lambda t, m: t.pop("output.weight.lora_a"), "'output' has only one factor"),
        (lambda t, m: t.update({"blk.0.attn_norm.weight": np.ones(4, np.float32)}), "'blk.0.attn_norm.weight' of F32 is not part of a LoRA"),
        (lambda t, m: t.update({f"blk.0.x.weight.lora_{x}": np.ones((1, 1), np.float32) for x in "ab"}), "'blk.0.x' is not a module"),
        (lambda t, m: t.update({"output.weight.lora_b": np.ones((4, 9), np.float32)}), "of 'lm_head' must fit"),
        (lambda t, m: m.update({"llama.attention.head_count": 5}), "16 outputs, which 5 heads do not share"),
        (lambda t, m: m.update({"general.architecture": ""}), "the architecture '' are unknown"),
        (lambda t, m: m.update({"adapter.lora.alpha": "16"}), "adapter.lora.alpha must be a number, got '16'"),
        (lambda t, m: m.update({"adapter.lora.alpha": [1, 2]}), "adapter.lora.alpha must be a number, got"),
        (lambda t, m: m.update({"adapter.lora.alpha": np.nan}), "adapter.lora.alpha must be finite, got nan"),
        (lambda t, m: t.update({"output.weight.lora_a": np.ones(16, np.float32)}), "'output' has only one factor, or a factor that is not a matrix"),
    ],
    "kohya": [
        (lambda t, m: t.update({"lora_te_lm_head.dora_scale": np.ones(4)}), r"magnitude of 'lora_te_lm_head' must have shape \(20,\), got \(4,\)"),
        (lambda t, m: t.update({"lora_te_lm_head.scale": np.ones(4)}), "'lora_te_lm_head.scale' of float64 is not part of a LoRA"),
        (lambda t, m: t.pop("lora_te_lm_head.lora_up.weight"), "'lora_te_lm_head' has only one factor"),
        (lambda t, m: t.clear(), "holds no LoRA"),
        (lambda t, m: t.update({"lora_te_lm_head.alpha": np.array(np.nan)}), "alpha of 'lora_te_lm_head' must be finite, got nan"),
    ],
    "mlx": [
        (lambda t, m: m.update(fine_tune_type="full"), "fine_tune_type must be 'lora' or 'dora', got 'full'"),
        (lambda t, m: m["lora_parameters"].pop("scale"), r"lora_parameters\.scale must be a number, got"),
        (lambda t, m: m["lora_parameters"].update(scale="2"), r"lora_parameters\.scale must be a number, got"),
        (lambda t, m: t.pop("lm_head.lora_b"), "'lm_head' has only one factor"),
        (lambda t, m: t.update({"lm_head.m": np.ones(20)}), "'lm_head' must have m if fine_tune_type is 'dora'"),
        (lambda t, m: t.update({"lm_head.bias": np.ones(20)}), "'lm_head.bias' of float64 is not part of a LoRA"),
        (lambda t, m: t.update({"lm_head.lora_a": np.ones((16, 9))}), "of 'lm_head' must fit"),
        (lambda t, m: t.update({"lm_head.lora_a": np.ones(16)}), "'lm_head' has only one factor, or a factor that is not a matrix"),
        (lambda t, m: m["lora_parameters"].update(scale=1e308), r"lora_parameters\.scale must be at least .* and at most"),
        (lambda t, m: m.update(lora_parameters=[2.0]), r"lora_parameters\.scale must be a number, got None"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "case"), [(form, case) for form in DAMAGED for case in range(len(DAMAGED[form]))]
)
def test_damaged_files_are_refused_by_name(tmp_path, form, case):
    change, message = DAMAGED[form][case]
    path = tmp_path / f"a{SUFFIX.get(form, '')}"
    adapters.convert(drawn(LLAMA), path, to=form, base=LLAMA)
    weights = path / "adapters.safetensors" if form == "mlx" else path
    file = (gguf if form == "gguf" else safetensors).open(weights)
    tensors = {name: file.read(name) for name in file.tensors}
    said = (
        json.loads((path / "adapter_config.json").read_text())
        if form == "mlx"
        else dict(file.metadata)
    )
    change(tensors, said)
    if form == "gguf":
        save_gguf(tensors, path, metadata=said)
    else:
        safetensors.save(tensors, weights)
    if form == "mlx":
        (path / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(FileError, match=message) as caught:
        adapters.load(path)
    assert str(caught.value).startswith(str(path))


def test_a_base_of_another_kind_is_refused(tmp_path):
    adapters.convert(drawn(LLAMA), tmp_path / "a.gguf", to="gguf", base=LLAMA)
    with pytest.raises(FileError, match="is for llama, but the base is 'qwen2'"):
        adapters.load(tmp_path / "a.gguf", base={"model_type": "qwen2", **SMALL})
    with pytest.raises(
        FileError, match=r"llama.cpp's names are known for models of .*, not of 'bert'"
    ):
        adapters.convert(drawn(LLAMA), tmp_path / "b.gguf", to="gguf", base={"model_type": "bert"})
    with pytest.raises(FileError, match="names no base that is on this disk: convert"):
        adapters.convert(drawn(LLAMA), tmp_path / "b.gguf", to="gguf")
    experts = drawn({"model_type": "mixtral", **SMALL}, roles=["experts"])
    with pytest.raises(
        FileError, match=r"mlx-lm's name for 'model.layers.0.mlp.experts.gate_up_proj' depends on"
    ):
        adapters.convert(experts, tmp_path / "mlx", to="mlx")
    tied = {**LLAMA, "tie_word_embeddings": True}
    for roles in (["head"], ["embedding"]):
        linear = {"roles": ["linear"]} if roles == ["head"] else {"roles": roles}
        with pytest.raises(FileError, match=r"llama.cpp \(refused\): .*: a tied weight"):
            adapters.convert(drawn(LLAMA, **linear), tmp_path / "b.gguf", to="gguf", base=tied)


def test_what_is_there_is_replaced_only_if_it_is_an_adapter(tmp_path):
    adapter, path = drawn(LLAMA), tmp_path / "a.gguf"
    adapters.convert(adapter, path, to="gguf", base=LLAMA)
    old = path.read_bytes()
    with pytest.raises(ValueError, match=r"already exists; pass force=True"):
        adapters.convert(adapter, path, to="gguf", base=LLAMA)
    with pytest.raises(ValueError, match="is an input itself"):
        adapters.convert(path, path, to="gguf", base=LLAMA, force=True)
    with pytest.raises(FileError, match=r"which llama.cpp cannot express"):
        adapters.convert(drawn(LLAMA, parts=["magnitude"]), path, to="gguf", base=LLAMA, force=True)
    assert path.read_bytes() == old
    adapters.convert(adapter, path, to="gguf", base=LLAMA, dtype="float16", force=True)
    assert len(path.read_bytes()) < len(old)
    for other in (tmp_path / "model.gguf", tmp_path / "notes.gguf"):
        save_gguf({}, other, metadata={"general.type": "model"})
        if other.stem == "notes":
            other.write_text("notes")
        with pytest.raises(FileError):  # as of any file that is no adapter
            adapters.convert(adapter, other, to="gguf", base=LLAMA, force=True)
        assert other.stat().st_size
    with pytest.raises(ValueError, match=r"must end in \.gguf"):
        adapters.convert(adapter, tmp_path / "a", to="gguf", base=LLAMA)
    with pytest.raises(ValueError, match="must not have the extension of a file"):
        adapters.convert(adapter, tmp_path / "b.gguf", to="peft")
    assert {each.name for each in tmp_path.iterdir()} == {"a.gguf", "model.gguf", "notes.gguf"}


def test_every_command_reads_and_writes_them(tmp_path, capsys):
    from lora_np.cli import run

    adapter = located_adapter("king-james")
    modules = adapters.load(adapter)
    paths = {
        "gguf": tmp_path / "a.gguf",
        "mlx": tmp_path / "mlx",
        "kohya": tmp_path / "a.safetensors",
    }
    generate = ["generate", "austen", "--prompt", "And ", "--tokens", "20", "--adapter"]
    base, right = str(located("austen")), tmp_path / "right"
    assert run(["merge", base, str(adapter), "-o", str(right)]) == 0
    capsys.readouterr()
    assert run([*generate, str(adapter)]) == 0
    said = capsys.readouterr().out
    for to, path in paths.items():
        assert run(["convert", str(adapter), "--to", to, "--base", "austen", "-o", str(path)]) == 0
        assert run(["inspect", str(path)]) == 0
        assert run(["inspect", str(path), "--base", base]) == 0
        capsys.readouterr()
        assert run([*generate, str(path)]) == 0
        assert capsys.readouterr().out == said
        merged = tmp_path / f"merged-{to}"
        assert run(["merge", base, str(path), "-o", str(merged)]) == 0
        before, *files = (
            safetensors.open(folder / "model.safetensors")
            for folder in (located("austen"), merged, right)
        )
        for name in files[0].tensors:
            W = before.read(name).astype(float)
            if module := modules.get(name.removesuffix(".weight")):
                W += exact(module).T if module.embedding else exact(module)
            assert_as_near(*(file.read(name) for file in files), W, floor=1, unit=2**-8)  # bfloat16
    assert run(["diff", str(paths["gguf"]), str(adapter)]) == 0
    assert run(["diff", str(paths["mlx"]), str(adapter)]) == 0
    assert (
        run(["resize", str(paths["gguf"]), "--rank", "2", "-o", str(tmp_path / "small.gguf")]) == 0
    )
    assert run(["resize", str(adapter), "--rank", "2", "-o", str(tmp_path / "small")]) == 0
    assert run(["diff", str(tmp_path / "small.gguf"), str(tmp_path / "small")]) == 0
    assert (
        run(
            [
                "combine",
                str(paths["gguf"]),
                str(paths["mlx"]),
                "--method",
                "cat",
                "-o",
                str(tmp_path / "two"),
            ]
        )
        == 0
    )
    assert adapters.load(tmp_path / "two").modules.keys() == adapters.load(adapter).modules.keys()


def test_the_bases_own_weights_next_to_an_adapter_are_left_out(tmp_path):
    """PEFT saves those of embeddings and heads; one that was changed is refused, since it cannot be
    said.
    """
    adapter = drawn(LLAMA, roles=["linear", "embedding"], ranks=(2,), scales=(1.0,))
    names = ("model.embed_tokens.weight", "lm_head.weight")
    weights = {
        name: np.random.default_rng(i).standard_normal((20, 16)).astype(np.float32)
        for i, name in enumerate(names)
    }
    (tmp_path / "base").mkdir()
    safetensors.save(weights, tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "config.json").write_text(json.dumps(LLAMA))
    full = {name: in_memory(weight) for name, weight in weights.items()}
    adapters.save(replace(adapter, full=full), tmp_path / "a")
    for to in ("gguf", "mlx", "portable"):
        out = tmp_path / f"{to}{SUFFIX.get(to, '')}"
        with pytest.raises(
            FileError, match=r"'.*weight' is replaced in full, .*; if it is the base's own, give"
        ):
            adapters.convert(tmp_path / "a", out, to=to, base=LLAMA)
        adapters.convert(tmp_path / "a", out, to=to, base=tmp_path / "base")
        same(adapter, adapters.load(out))
    assert {row.status for row in adapters.check(tmp_path / "a", runtime="llama.cpp").rows} == {
        "fine",
        "ignored",
    }
    assert adapters.check(tmp_path / "a", runtime="llama.cpp", base=tmp_path / "base").fine
    full["lm_head.weight"] = in_memory(weights["lm_head.weight"] + 1)
    adapters.save(replace(adapter, full=full), tmp_path / "b")
    with pytest.raises(FileError, match=r"'lm_head.weight' is replaced in full"):
        adapters.convert(tmp_path / "b", tmp_path / "b.gguf", to="gguf", base=tmp_path / "base")


def test_what_began_with_a_part_of_the_base_is_rebased(tmp_path):
    adapter = drawn(LLAMA, ranks=(2,), scales=(2.0,))
    adapter = replace(adapter, raw={**adapter.raw, "init_lora_weights": "pissa"})
    rng = np.random.default_rng(0)
    (tmp_path / "base").mkdir()
    weights = {
        f"{name}.weight": rng.standard_normal(module.shape).astype(np.float32)
        for name, module in adapter.items()
    }
    safetensors.save(weights, tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "config.json").write_text(json.dumps(LLAMA))
    wanted = adapters.to_lora(adapter, base=tmp_path / "base")
    for to in ("gguf", "mlx", "portable"):
        out = tmp_path / f"{to}{SUFFIX.get(to, '')}"
        with pytest.raises(
            FileError,
            match="init_lora_weights = 'pissa' takes the first B A out of the base",
        ):
            adapters.convert(adapter, out, to=to, base=LLAMA)
        adapters.convert(adapter, out, to=to, base=tmp_path / "base")
        same(wanted, adapters.load(out))
        assert {module.rank for module in adapters.load(out).values()} == {4}


@pytest.mark.parametrize("alpha", [None, 0.0, 3.0])
def test_without_an_alpha_a_file_has_scale_1(tmp_path, alpha):
    """In kohya's format none and 0 mean the rank, in llama.cpp's no scaling at all."""
    tensors = {
        "lora_te_q.lora_down.weight": np.ones((2, 3), np.float32),
        "lora_te_q.lora_up.weight": np.ones((4, 2), np.float32),
    }
    if alpha is not None:
        tensors["lora_te_q.alpha"] = np.array(alpha, np.float16)
    safetensors.save(tensors, tmp_path / "a.safetensors")
    assert adapters.load(tmp_path / "a.safetensors")["lora_te_q"].scale == (alpha or 2) / 2
    said = {"general.type": "adapter", "general.architecture": "qwen2", "adapter.type": "lora"}
    said |= {} if alpha is None else {"adapter.lora.alpha": alpha}
    tensors = {
        f"output.weight.lora_{x}": each for x, each in zip("ab", tensors.values(), strict=False)
    }
    save_gguf(tensors, tmp_path / "a.gguf", metadata=said)
    assert adapters.load(tmp_path / "a.gguf")["lm_head"].scale == (alpha or 2) / 2


def loha(folder):
    rng = np.random.default_rng(0)
    folder.mkdir()
    settings = {"peft_type": "LOHA", "r": 1, "alpha": 2, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    shapes = {"w1_a": (16, 1), "w1_b": (1, 16), "w2_a": (16, 1), "w2_b": (1, 16)}
    at = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{at}.hada_{name}": rng.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    safetensors.save(tensors, folder / "adapter_model.safetensors")
    return folder


def test_another_tuner_becomes_a_lora_first(tmp_path):
    other = loha(tmp_path / "loha")
    adapters.convert(other, tmp_path / "lora", to="lora")
    (name,) = found = adapters.load(tmp_path / "lora")
    file = safetensors.open(other / "adapter_model.safetensors")
    a, b, c, d = (file.read(key).astype(float) for key in sorted(file.tensors))
    assert_as_near(found.delta(name), adapters.load(other)[name].delta(), 2 * (a @ b) * (c @ d))
    for to in ("gguf", "mlx", "portable"):
        out = tmp_path / f"{to}{SUFFIX.get(to, '')}"
        with pytest.raises(
            FileError, match=r"LoHa is not a LoRA: convert it first \(lora-np convert --to lora\)"
        ):
            adapters.convert(other, out, to=to, base=LLAMA)
        adapters.convert(tmp_path / "lora", out, to=to, base=LLAMA)
        same(found, adapters.load(out))
    rows = adapters.check(other).rows
    assert {row.runtime for row in rows if row.status == "fine"} == {"peft"}
    assert {row.fix for row in rows if row.status != "fine"} == {"lora-np convert --to lora"}
    with pytest.raises(FileError, match="DoRA has no exact LoRA with fewer parameters"):
        adapters.convert(drawn(LLAMA, parts=["magnitude"]), tmp_path / "dora", to="lora")


def test_a_file_that_would_not_be_read_back_is_not_written(tmp_path):
    smaller = {**LLAMA, "num_hidden_layers": 1}
    with pytest.raises(FileError, match=r"'lora_te_model_layers_1_\w+' is no module of the base"):
        adapters.convert(drawn(LLAMA), tmp_path / "a.safetensors", to="kohya", base=smaller)
    assert not list(tmp_path.iterdir())


def test_an_mlx_adapter_keeps_the_name_of_its_base(tmp_path):
    adapters.convert(located_adapter("king-james"), tmp_path / "mlx", to="mlx")
    assert adapters.load(tmp_path / "mlx").raw["base_model_name_or_path"] == "austen"
