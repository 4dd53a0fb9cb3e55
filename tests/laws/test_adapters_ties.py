"""Modules that share the embedding's numbers: what an adapter of one of them does to the others,
namely nothing.
"""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters.adapter import in_memory
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models import from_config, open_model
from tests.models.test_families import ENCODER, T5

LLAMA = {
    "vocab_size": 13, "hidden_size": 6, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "tie_word_embeddings": True,
}  # fmt: skip
KINDS = {
    # config, the table, and what shares its numbers
    "llama": ({"model_type": "llama", **LLAMA}, "model.embed_tokens", ["lm_head.weight"]),
    "bert": (
        {"model_type": "bert", **ENCODER, "architectures": ["BertForMaskedLM"]},
        "bert.embeddings.word_embeddings",
        ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"],
    ),
    "whisper": (
        {
            "model_type": "whisper",
            "d_model": 8,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "vocab_size": 11,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
        },
        "model.decoder.embed_tokens",
        ["proj_out.weight"],
    ),
    "gpt2 with as many positions as tokens": (
        {"model_type": "gpt2", "vocab_size": 12, "n_positions": 12, "n_embd": 6, "n_head": 2, "n_layer": 1},
        "transformer.wte",
        ["lm_head.weight"],
    ),
}  # fmt: skip


def checkpoint(path, config, seed=0):
    """What transformers would save of a model with this config: tied numbers once."""
    rng, tensors = np.random.default_rng(seed), {}
    for module in from_config(config).modules:
        if module.kind in ("parameter", "experts"):
            tensors[module.name] = rng.standard_normal(module.shape)
            continue
        if not module.tied:
            tensors[f"{module.name}.weight"] = rng.standard_normal(module.shape)
        if module.bias and not module.tied_bias:
            tensors[f"{module.name}.bias"] = rng.standard_normal(module.shape[0])
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    safetensors.save(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def table_adapter(path, table, shape, **raw):
    rng = np.random.default_rng(1)
    module = adapters.AdapterModule.of(
        A=rng.standard_normal((2, shape[0])),
        B=rng.standard_normal((shape[1], 2)),
        alpha=3.0,
        embedding=True,
    )
    made = adapters.Adapter(
        {table: module}, raw={"peft_type": "LORA", "target_modules": [table], **raw}
    )
    adapters.save(made, path)
    return made


@pytest.fixture(params=KINDS)
def case(request, tmp_path):
    config, table, shared = KINDS[request.param]
    base = open_model(checkpoint(tmp_path / "base", config))
    made = table_adapter(tmp_path / "adapter", table, base.info(f"{table}.weight").shape)
    return tmp_path, base, made, table, shared


def test_an_adapted_table_leaves_what_shares_its_numbers_alone(case):
    folder, base, made, table, shared = case
    result = adapters.merge(folder / "base", folder / "adapter", folder / "merged")
    merged = open_model(folder / "merged")
    W = base.read(f"{table}.weight")
    np.testing.assert_allclose(merged.read(f"{table}.weight"), W + made.delta(table).T, rtol=1e-12)
    np.testing.assert_array_equal(merged.read(shared[0]), W)
    for name in shared[1:]:
        np.testing.assert_array_equal(merged.read(name), base.read("cls.predictions.bias"))
    assert merged.config["tie_word_embeddings"] is False
    assert {*merged.places} - {*base.places} == {*shared}
    assert any(f"no longer tied: {', '.join(sorted(shared))}" in note for note in result.notes)


def test_what_replaces_all_of_them_by_the_same_leaves_them_shared(case):
    folder, base, _, table, shared = case
    new = base.read(f"{table}.weight") + 1
    names = [f"{table}.weight", shared[0]]
    raw = {
        "peft_type": "LORA",
        "target_modules": ["x"],
        "modules_to_save": [n.rpartition(".")[0] for n in names],
    }
    other = next(
        name
        for name, info in base.files["model.safetensors"].tensors.items()
        if len(info.shape) == 2 and table not in name
    )
    d, k = base.info(other).shape
    module = adapters.AdapterModule.of(A=np.ones((1, k)), B=np.ones((d, 1)), alpha=1)
    adapter = adapters.Adapter(
        {other.removesuffix(".weight"): module},
        dict.fromkeys(names, in_memory(new)),
        {**raw, "target_modules": [other.removesuffix(".weight")]},
    )
    adapters.merge(folder / "base", adapter, folder / "merged")
    merged = open_model(folder / "merged")
    np.testing.assert_array_equal(merged.read(names[0]), new)
    assert {*merged.places} == {*base.places}
    assert merged.config == base.config
    moved = adapters.Adapter(
        adapter.modules, {names[0]: in_memory(new)}, {**adapter.raw, "modules_to_save": [table]}
    )
    adapters.merge(folder / "base", moved, folder / "one")
    np.testing.assert_array_equal(open_model(folder / "one").read(shared[0]), base.read(names[0]))


@pytest.mark.parametrize("adapted", [(True, False), (False, True), (True, True)], ids=str)
def test_our_own_merge_is_extracted_without_insisting(case, adapted):
    """The table, the head, or both by different updates."""
    folder, base, made, table, shared = case
    head, (d, k) = shared[0].removesuffix(".weight"), base.info(f"{table}.weight").shape
    rng = np.random.default_rng(2)
    of_head = adapters.AdapterModule.of(
        A=rng.standard_normal((1, k)), B=rng.standard_normal((d, 1)), alpha=1.0
    )
    modules = {table: made[table]} if adapted[0] else {}
    modules |= {head: of_head} if adapted[1] else {}
    raw = {"peft_type": "LORA", "target_modules": [*modules]}
    adapters.merge(folder / "base", adapters.Adapter(modules, raw=raw), folder / "merged")
    result = adapters.extract(folder / "base", folder / "merged", folder / "again", rank=2)
    assert set(adapters.load(folder / "again")) == set(modules)
    assert {row.kept for row in result.rows} == {"LoRA"}
    adapters.merge(folder / "base", folder / "again", folder / "twice")
    one, two = open_model(folder / "merged"), open_model(folder / "twice")
    assert {*one.places} == {*two.places}
    for name in one.places:
        np.testing.assert_allclose(two.read(name), one.read(name), atol=1e-6)


def test_a_family_that_always_shares_them_is_refused(tmp_path):
    config = {"model_type": "t5", **T5}
    base = open_model(checkpoint(tmp_path / "base", config))
    table_adapter(tmp_path / "adapter", "shared", base.info("shared.weight").shape)
    with pytest.raises(FileError, match="this type always share them: it cannot be merged"):
        adapters.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
