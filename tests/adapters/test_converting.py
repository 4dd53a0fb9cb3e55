"""Conversions: what a target cannot run is refused, and what a base tells is used."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lora_np import adapters
from lora_np.accounting import count
from lora_np.adapters import AdapterModule
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models import describe
from tests.adapters.test_checking import VISION
from tests.adapters.test_formats import SMALL
from tests.laws.test_adapters_pains import text_of_vision


def module(d=4, k=4, seed=0, **options):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((2, k)), rng.standard_normal((d, 2))
    return AdapterModule.of(A=A, B=B, alpha=2.0, **options)


def mlx_folder(folder, key, A, B):
    folder.mkdir()
    safetensors.save({f"{key}.lora_a": A, f"{key}.lora_b": B}, folder / "adapters.safetensors")
    settings = {"fine_tune_type": "lora", "lora_parameters": {"scale": 3.0}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_targets_do_not_match_containers(tmp_path):
    """Of PEFT's containers ``tower.head`` holds the layer ``tower.head.proj``."""
    base = tmp_path / "base"
    base.mkdir()
    names = ["head", "tower.head.proj", "blocks.0.0", "blocks.0.up", "blocks.1.up", "up.down"]
    tensors = {f"{name}.weight": np.ones((4, 4), np.float32) for name in names}
    safetensors.save(tensors, base / "model.safetensors")
    targets = {
        ("head",): "head",  # an expression, which is for whole names
        ("blocks.0.0",): ["blocks.0.0"],
        ("blocks.0.up", "blocks.1.up"): ["blocks.0.up", "blocks.1.up"],
        ("tower.head.proj", "up.down"): ["down", "proj"],
    }
    for i, (adapted, wanted) in enumerate(targets.items()):
        adapter = adapters.Adapter({name: module() for name in adapted})
        adapters.convert(adapter, tmp_path / str(i), to="portable", base=base)
        config = json.loads((tmp_path / str(i) / "adapter_config.json").read_text())
        assert config["target_modules"] == wanted


@pytest.mark.parametrize("name", ["model.embed_tokens_per_layer", "model.embed_tokens"])
def test_the_base_tells_mlx_embeddings_from_linear_layers(name, tmp_path):
    config = {
        "model_type": "gemma3n_text", "vocab_size": 8, "vocab_size_per_layer_input": 8,
        "hidden_size": 8, "num_hidden_layers": 2, "hidden_size_per_layer_input": 4,
        "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
        "num_kv_shared_layers": 0,
    }  # fmt: skip
    assert name in {x.name for x in describe(config).modules if x.kind == "embedding"}
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((8, 2)), rng.standard_normal((2, 8))
    folder = mlx_folder(tmp_path / "mlx", name, A, B)
    for base in (config, None):
        read = adapters.load(folder, base=base)[name]
        assert read.embedding
        np.testing.assert_allclose(read.delta(), 3 * (A @ B).T)  # outputs by tokens


def test_a_linear_layer_inside_of_experts_is_no_parameter(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    name = "layers.0.experts.router.layer"
    safetensors.save({f"{name}.weight": np.ones((4, 4))}, base / "model.safetensors")
    folder = mlx_folder(tmp_path / "mlx", name, np.ones((4, 1)), np.ones((1, 4)))
    assert adapters.load(folder).modules[name].parameter
    assert not adapters.load(folder, base=base)[name].parameter


@pytest.mark.parametrize("name", ["model.embed_tokens", "lm_head"])
def test_tied_weights_are_not_written_for_mlx(name, tmp_path):
    config = {**SMALL, "model_type": "llama", "vocab_size": 8, "tie_word_embeddings": True}
    width = config["hidden_size"]
    update = module(width, 8, embedding=True) if "embed" in name else module(8, width)
    adapter = adapters.Adapter({name: update})
    with pytest.raises(
        FileError, match=rf"mlx \((refused|wrong scale)\): {name}: .*; lora-np merge"
    ):
        adapters.convert(adapter, tmp_path / "mlx", to="mlx", base=config)
    assert not (tmp_path / "mlx").exists()
    untied = {**config, "tie_word_embeddings": False}
    adapters.convert(adapter, tmp_path / "mlx", to="mlx", base=untied)


def test_an_update_of_zero_is_told(tmp_path):
    zero = AdapterModule.of(A=np.ones((1, 4)), B=np.zeros((4, 1)), alpha=1.0)
    told = adapters.convert(adapters.Adapter({"q": zero}), tmp_path / "zero", to="portable")
    assert "the adapter changes nothing" in told.notes[0]
    both = adapters.Adapter({"q": zero, "k": module()})
    assert not adapters.convert(both, tmp_path / "both", to="portable").notes
    biased = replace(zero, parts={**zero.parts, "bias": adapters.adapter.in_memory(np.ones(4))})
    raw = {"peft_type": "LORA", "lora_bias": True}
    biased = adapters.Adapter({"q": biased}, raw=raw)
    assert not adapters.convert(biased, tmp_path / "bias", to="peft").notes
    base = tmp_path / "base"
    base.mkdir()
    safetensors.save({"q.weight": np.eye(4)}, base / "model.safetensors")
    merged = adapters.merge(base, tmp_path / "zero", tmp_path / "merged", any_base=True)
    assert any("nothing has changed" in note for note in merged.notes)


def test_what_is_beside_a_dora_is_kept(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    weights = {f"{name}.weight": np.eye(4) for name in ("q", "k", "embed")}
    safetensors.save(weights, base / "model.safetensors")
    new = adapters.adapter.TokenRows((2, 0), adapters.adapter.in_memory(np.ones((2, 4))))
    raw = {"peft_type": "LORA", "use_dora": True, "trainable_token_indices": {"embed": [2, 0]}}
    modules = {"q": module(magnitude=np.ones(4)), "k": module(seed=1)}
    dora = adapters.Adapter(modules, raw=raw, rows={"embed.weight": new})
    adapters.convert(dora, tmp_path / "out", to="lora", base=base, tolerance=0.5)
    found = adapters.load(tmp_path / "out")
    assert found.rows["embed.weight"].tokens == (2, 0)
    np.testing.assert_array_equal(found.delta("k"), modules["k"].delta())


@pytest.mark.parametrize("option", [{"tolerance": 0.1}, {"grams": {"q": np.eye(4)}}])
def test_options_of_another_target_are_refused(tmp_path, option):
    with pytest.raises(ValueError, match="only for to='lora', got to='kohya'"):
        adapters.convert(
            adapters.Adapter({"q": module()}), tmp_path / "a.safetensors", to="kohya", **option
        )


def test_combinations_that_cancel_are_told_and_equal_copies_are_no_conflict(tmp_path):
    copy = adapters.adapter.in_memory(np.eye(4, dtype=np.float32))
    raw = {"peft_type": "LORA", "modules_to_save": ["norm"]}
    one = adapters.Adapter({"q": module()}, {"norm.weight": copy}, raw)
    other = adapters.Adapter({"q": module()}, {"norm.weight": copy}, raw)
    both = adapters.combine([one, other], tmp_path / "both", weights=[1, -1])
    assert not both.notes
    assert list(adapters.load(tmp_path / "both").full) == ["norm.weight"]
    for method in ("sum", "svd", "linear"):
        plain = [adapters.Adapter({"q": module(), "k": module(seed=1)}) for _ in range(2)]
        told = adapters.combine(plain, tmp_path / method, weights=[1, -1], method=method)
        assert any("the adapter changes nothing" in note for note in told.notes), method
        told = adapters.combine(plain, tmp_path / f"{method}2", weights=[1, -0.5], method=method)
        assert not any("the adapter changes nothing" in note for note in told.notes), method
    changed = adapters.adapter.in_memory(2 * np.eye(4, dtype=np.float32))
    third = adapters.Adapter({"q": module()}, {"norm.weight": changed}, raw)
    with pytest.raises(FileError, match=r"replaces 'norm\.weight', as an earlier adapter does"):
        adapters.combine([one, third], tmp_path / "conflict")


def test_arguments_of_merge_in_the_wrong_order_are_told(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    safetensors.save({"q.weight": np.eye(4)}, base / "model.safetensors")
    (base / "config.json").write_text('{"model_type": "llama"}')
    adapters.save(adapters.Adapter({"q": module()}), adapter)
    for call in (
        lambda: adapters.merge(adapter, base, tmp_path / "out", any_base=True),
        lambda: adapters.inspect(base),
    ):
        with pytest.raises(FileError, match=r"base: a model, not an adapter"):
            call()
    with pytest.raises(ValueError, match="a merged model is a directory"):
        adapters.merge(base, adapter, tmp_path / "out.gguf", any_base=True)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT"])
def test_what_trains_no_weights_is_told(kind, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    file = tmp_path / "adapter_model.safetensors"
    safetensors.save({"prompt_embeddings": np.ones((4, 8))}, file)
    for call in (lambda: adapters.load(tmp_path), lambda: count("gpt2", config=tmp_path)):
        with pytest.raises(
            ValueError, match=f"'{kind}' trains tokens before the input, no weights"
        ):
            call()


def test_names_joined_by_commas_are_not_an_expression():
    with pytest.raises(ValueError, match=r"give a list: \['q_proj', 'v_proj'\]"):
        count("llama-3-8b", rank=8, targets="q_proj, v_proj")


@pytest.mark.parametrize(("task", "head"), [("SEQ_CLS", 2 * 24), ("TOKEN_CLS", 2 * 24 + 2)])
def test_the_task_of_an_adapter_selects_the_head(task, head):
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 61,
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 24,
    }  # fmt: skip
    settings = {"r": 4, "target_modules": ["q_proj", "k_proj"], "task_type": task}
    counted = count(config, config=settings)
    plain = count(config, config={**settings, "task_type": "CAUSAL_LM"})
    assert counted.trainable - plain.trainable == head
    assert "score" in " ".join(counted.saved)
    assert not any("lm_head" in module.name for module in counted.spec.groups)


def test_names_of_a_language_model_in_another_are_mlx_lms_there_and_back(tmp_path):
    language = text_of_vision()
    converted = adapters.convert(language, tmp_path / "mlx", to="mlx", base=VISION)
    keys = safetensors.open(tmp_path / "mlx" / "adapters.safetensors").tensors
    assert "language_model.model.layers.0.self_attn.q_proj.lora_a" in keys
    assert {row.name for row in converted.rows} == language.keys()
    assert adapters.load(tmp_path / "mlx", base=VISION).keys() == language.keys()
    assert adapters.check(tmp_path / "mlx", runtime="mlx", base=VISION).fine
    assert len(adapters.convert(language, tmp_path / "alone", to="mlx").rows) == len(language)
    tensors = {
        key.replace("language_model.model.", "model.language_model."): file.read(key)
        for file in [safetensors.open(tmp_path / "mlx" / "adapters.safetensors")]
        for key in file.tensors
    }
    safetensors.save(tensors, tmp_path / "mlx" / "adapters.safetensors")
    for base in (None, VISION):
        rows = adapters.check(tmp_path / "mlx", runtime="mlx", base=base).rows
        assert {row.status for row in rows if "layers" in row.module} == {"refused"}
    adapters.repair(tmp_path / "mlx", tmp_path / "new", base=VISION)
    assert safetensors.open(tmp_path / "new" / "adapters.safetensors").tensors.keys() == keys.keys()
