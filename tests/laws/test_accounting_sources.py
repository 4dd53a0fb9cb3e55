"""Configs, checkpoints and models in memory, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_np import Activation, Linear, Sequential, inject
from lora_np.accounting import count, count_model, model_spec
from lora_np.hub import safetensors
from lora_np.models import catalogue, from_config, from_safetensors, preset
from lora_np.models.families import family_names, family_of
from lora_np.models.sources import preset_config
from tests.models.test_families import CASES, DECODER, LATENT, meta_model


def test_a_config_file_a_directory_and_its_fields_say_the_same(tmp_path: Path) -> None:
    fields = preset_config("llama-3.2-1b")
    (tmp_path / "config.json").write_text(json.dumps(fields))
    specs = [from_config(fields), model_spec(tmp_path / "config.json"), model_spec(tmp_path)]
    assert {spec.total for spec in specs} == {preset("llama-3.2-1b").total}
    assert specs[1].name == tmp_path.name


def test_absent_fields_take_the_familys_defaults() -> None:
    assert from_config({"model_type": "gpt2"}).total == preset("gpt2").total
    assert from_config({"model_type": "deepseek_v3"}).total == preset("deepseek-v3").total


def test_the_class_decides_the_head() -> None:
    fields = {**preset_config("llama-3-8b"), "num_labels": 5}
    base = from_config({**fields, "architectures": ["LlamaModel"]})
    assert (
        from_config({**fields, "architectures": ["LlamaForSequenceClassification"]}).total
        == base.total + 5 * 4096
    )
    assert from_config({**fields, "architectures": ["LlamaModel"]}).total == base.total


def test_every_family_is_listed_with_its_defaults() -> None:
    rows = {row["family"]: row["default targets"] for row in catalogue().families.records}
    assert set(rows) == set(family_names())
    assert rows["phi"] == "q_proj v_proj fc1 fc2"
    assert rows["vit"] is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model_type": "mamba2"},
            "model_type must be one .*got 'mamba2'.*safetensors.*named_modules",
        ),
        ({}, "model_type is missing"),
        (
            {"model_type": "llama", "hidden_size": 100, "num_attention_heads": 3},
            "num_attention_heads must divide",
        ),
        (
            {"model_type": "bert", "hidden_size": 100, "num_attention_heads": 12},
            "must divide hidden_size = 100",
        ),
        (
            {"model_type": "gpt2", "n_embd": 100, "n_head": 3},
            "n_head must divide n_embd = 100, got 3",
        ),
        (
            {"model_type": "whisper", "d_model": 10, "encoder_attention_heads": 4},
            "must divide d_model = 10",
        ),
        (
            {"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 3},
            "num_key_value_heads must divide num_attention_heads = 8, got 3",
        ),
        (
            {"model_type": "mixtral", "num_experts_per_tok": 9},
            "must be between 1 and num_local_experts = 8",
        ),
        ({"model_type": "llama", "hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        (
            {"model_type": "llama", "architectures": ["LlamaForPoetry"]},
            "architecture must be one of",
        ),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_config(fields)


@pytest.mark.parametrize("value", [2.5, "4096", True])
def test_fields_of_the_wrong_type_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="hidden_size must be a whole number"):
        from_config({"model_type": "llama", "hidden_size": value})


def test_a_flag_that_is_no_boolean_is_refused() -> None:
    with pytest.raises(TypeError, match="tie_word_embeddings must be true or false, got 1"):
        from_config({"model_type": "llama", "tie_word_embeddings": 1})


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ("[1]", "must be a JSON object")]
)
def test_a_config_that_is_not_json(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        model_spec(str(tmp_path / "config.json"))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        model_spec(str(tmp_path / "config.json"))
    with pytest.raises(ValueError, match=r"model\.safetensors: no such file"):
        model_spec(str(tmp_path / "model.safetensors"))
    with pytest.raises(
        ValueError, match=r"no model.safetensors and no model.safetensors.index.json"
    ):
        model_spec(tmp_path)
    with pytest.raises(
        ValueError, match=r"no model 'lama-3-8b': neither .*; close names: llama-3-8b"
    ):
        model_spec("lama-3-8b")
    assert model_spec("LLAMA-3-8B").total == model_spec("llama-3-8b").total
    with pytest.raises(ValueError, match="d must be at least 1, got 0"):
        model_spec("0x120")


def shapes_of(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    safetensors.save({name: np.zeros(shape, np.float16) for name, shape in shapes.items()}, path)
    return path


TINY = {
    "model.embed_tokens.weight": (11, 6),
    "model.layers.0.q_proj.weight": (4, 6),
    "model.layers.0.q_proj.bias": (4,),
    "model.layers.1.q_proj.weight": (4, 6),
    "model.layers.1.q_proj.bias": (4,),
    "model.norm.weight": (6,),
    "conv.weight": (5, 3, 2, 2),
    "position": (1, 7, 6),
    "lm_head.weight": (11, 6),
}


def test_a_checkpoint_is_counted_from_its_header(tmp_path: Path) -> None:
    spec = model_spec(shapes_of(tmp_path / "model.safetensors", TINY))
    assert spec.total == sum(int(np.prod(shape)) for shape in TINY.values())
    kinds = {module.name: module.kind for module in spec.modules}
    assert kinds == {
        "model.embed_tokens": "embedding",
        "model.layers.0.q_proj": "linear",
        "model.layers.1.q_proj": "linear",
        "model.norm": "norm",
        "conv": "convolution",
        "position": "parameter",
        "lm_head": "linear",
    }
    assert count_model(spec, rank=2, targets="all-linear").trainable == 2 * 2 * 10
    without = count_model(spec, rank=2)
    assert without.trainable == 2 * 2 * 10
    assert "no default targets" in without.notes[0]


def test_a_transposed_map_is_known_by_its_bias(tmp_path: Path) -> None:
    path = shapes_of(
        tmp_path / "gpt2.safetensors", {"c_attn.weight": (6, 18), "c_attn.bias": (18,)}
    )
    (module,) = from_safetensors(path).modules
    assert module.shape == (18, 6)


def test_a_bias_of_another_shape_is_counted_whole(tmp_path: Path) -> None:
    shapes = {
        "q_norm.weight": (4, 6),  # a norm of each head
        "q_norm.bias": (4, 6),
        "up.weight": (3, 5, 2),  # a transposed convolution
        "up.bias": (5,),
        "norm.weight": (6,),
        "norm.bias": (1,),
        "scale.weight": (),
        "scale.bias": (2,),
    }
    spec = from_safetensors(shapes_of(tmp_path / "odd.safetensors", shapes))
    assert spec.total == sum(int(np.prod(shape)) for shape in shapes.values())
    assert {module.kind for module in spec.modules} == {"parameter"}
    with pytest.raises(ValueError, match="has no linear"):
        count_model(spec, rank=2, targets="all-linear")


def test_names_with_braces_and_odd_numbers_are_kept(tmp_path: Path) -> None:
    names = {
        "a.{}.weight": (2, 3),
        "a.{x.weight": (2, 3),
        "l.007.weight": (2, 3),
        "l.8.weight": (2, 3),
    }
    spec = from_safetensors(shapes_of(tmp_path / "odd.safetensors", names))
    assert {f"{module.name}.weight" for module in spec.modules} == set(names)
    assert count_model(spec, rank=1, targets=["l.007"]).trainable == 5


def sharded(directory: Path, weight_map: dict[str, str]) -> Path:
    shapes_of(directory / "a.safetensors", {"x.weight": (2, 3)})
    shapes_of(directory / "b.safetensors", {"y.weight": (4, 5)})
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index


def test_a_sharded_directory(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"x.weight": "a.safetensors", "y.weight": "b.safetensors"})
    assert model_spec(tmp_path).total == model_spec(index).total == 26


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("../a.safetensors", "must be a plain name inside the directory"),
        ("/etc/passwd", "has tensors, but only safetensors can"),
        ("sub/a.safetensors", "must be a plain name inside the directory"),
        ("..\\\\a.safetensors", "must be a plain name inside the directory"),
        ("..", "has tensors, but only safetensors can"),
        ("", "has tensors, but only safetensors can"),
        ("c.safetensors", "no such file"),
        ("b.safetensors", "says that 'x.weight' is in b.safetensors, but it is not"),
    ],
)
def test_an_index_is_not_believed(tmp_path: Path, file: str, message: str) -> None:
    sharded(tmp_path, {"x.weight": file})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        model_spec(tmp_path)


def test_an_index_without_a_map(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}')
    with pytest.raises(ValueError, match="weight_map must map"):
        model_spec(tmp_path)


def test_a_truncated_or_lying_header(tmp_path: Path) -> None:
    path = shapes_of(tmp_path / "model.safetensors", TINY)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 2])
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        model_spec(path)
    path.write_bytes((2**40).to_bytes(8, "little") + content[8:])
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        model_spec(path)
    path.write_bytes(content.replace(b"[11,6]", b"[12,6]"))
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        model_spec(path)


def test_our_own_models() -> None:
    rng = np.random.default_rng(0)
    base = Sequential(
        [
            Linear.init(d_out=20, d_in=30, rng=rng, bias=True),
            Activation(np.tanh),
            Linear.init(d_out=5, d_in=20, rng=rng),
        ]
    )
    spec = model_spec(base)
    assert [(module.name, module.shape) for module in spec.modules] == [
        ("layers.0", (20, 30)),
        ("layers.2", (5, 20)),
    ]
    adapted = inject(base, rank=4, alpha=8, rng=rng)
    counted = count(adapted)
    assert (
        counted.trainable
        == count_model(spec, rank=4, targets="all-linear").trainable
        == 4 * (50 + 25)
    )
    assert counted.frozen == spec.total == 20 * 30 + 20 + 5 * 20
    assert sum(row["trainable"] for row in counted.table.records) == counted.trainable  # type: ignore[misc]


def test_a_tied_weight_of_ours_is_counted_once() -> None:
    W = np.zeros((4, 4))
    model = Sequential([Linear(W), Linear(W)])
    assert model_spec(model).total == count(model).total == 16
    assert count_model(model_spec(model), rank=1, targets="all-linear").trainable == 16


@pytest.mark.parametrize("thing", [3, None, [], object()])
def test_what_is_no_model(thing: object) -> None:
    with pytest.raises(TypeError, match="must hold arrays"):
        count(thing)
    with pytest.raises(TypeError, match="must hold arrays or have named_modules"):
        model_spec(thing)


@pytest.mark.peers
@pytest.mark.parametrize("case", range(0, len(CASES), 4))
def test_a_torch_model_says_what_its_config_says(case: int) -> None:
    family, task, fields = CASES[case]
    spec = from_config(
        {"model_type": family, **fields, "architectures": [family_of(family).classes + task]}
    )
    live = model_spec(meta_model(family, task, fields))
    assert live.total == spec.total
    linear = {m.name: m.shape for m in spec.modules if m.kind == "linear"}
    assert {m.name: m.shape for m in live.modules if m.kind == "linear"} == linear
    ours, theirs = (count_model(each, rank=3, targets="all-linear") for each in (spec, live))
    assert (ours.trainable, ours.total) == (theirs.trainable, theirs.total)


@pytest.mark.peers
def test_experts_of_a_torch_model_by_both_conventions() -> None:
    spec = from_config({"model_type": "deepseek_v3", **LATENT})
    live = model_spec(meta_model("deepseek_v3", "ForCausalLM", LATENT))
    for experts in ("peft", "per-expert"):
        ours, theirs = (
            count_model(each, rank=2, targets="all-linear", experts=experts)
            for each in (spec, live)
        )
        assert ours.trainable == theirs.trainable


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd")
def test_any_torch_module() -> None:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(4, 6, 3, groups=2)
            self.norm = torch.nn.BatchNorm2d(6)
            self.up = torch.nn.ConvTranspose2d(6, 2, 2)
            self.maps = torch.nn.ModuleList([torch.nn.Linear(5, 7, bias=b) for b in (True, False)])
            self.scale = torch.nn.Parameter(torch.zeros(3))

    import peft

    net = Net()
    spec = model_spec(net)
    assert spec.total == sum(p.numel() for p in net.parameters())
    report = count_model(spec, rank=2, targets=["conv", "maps.0", "maps.1"])
    adapted = peft.get_peft_model(
        net, peft.LoraConfig(r=2, target_modules=["conv", "maps.0", "maps.1"])
    )
    assert (report.trainable, report.total) == adapted.get_nb_trainable_parameters()


@pytest.mark.peers
@pytest.mark.parametrize("family", ["llama", "gpt2", "vit"])
def test_a_saved_checkpoint_has_the_configs_size(tmp_path: Path, family: str) -> None:
    import torch
    import transformers

    fields = next(fields for name, _, fields in CASES if name == family)
    config = transformers.AutoConfig.for_model(family, **fields)
    model = transformers.AutoModel.from_config(config)
    model.save_pretrained(tmp_path)
    spec = from_safetensors(tmp_path)
    assert spec.total == sum(p.numel() for p in model.parameters())
    linear = [
        m for m in model.modules() if isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D"
    ]
    assert sum(m.copies for m in spec.groups if m.kind == "linear") == len(linear)


def test_decoders_agree_across_defaults() -> None:
    # Mistral is Llama with eight key-value heads and a wider MLP
    llama = from_config({"model_type": "llama", **DECODER, "num_key_value_heads": 2})
    mistral = from_config({"model_type": "mistral", **DECODER, "num_key_value_heads": 2})
    assert llama.total == mistral.total
