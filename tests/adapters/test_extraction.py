"""`extract` by the parameters of the live model, and the check of its own result."""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import extraction
from lora_np.cli import run
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models import open_model
from tests.rounding import assert_near

FIELDS = {
    "hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 20,
}  # fmt: skip
EXPERTS = {
    "qwen3_moe": {"num_experts": 3, "moe_intermediate_size": 6, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 3, "num_experts_per_tok": 2},
}


def tensors_of(kind):
    """Names and shapes of a small checkpoint, as it is on the disk."""
    shapes = {
        "model.embed_tokens.weight": (20, 8),
        "lm_head.weight": (20, 8),
        "model.norm.weight": (8,),
    }
    for layer in range(2):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.q_proj.weight": (8, 8), f"{at}.self_attn.k_proj.weight": (4, 8)}
        if kind == "qwen3_moe":
            shapes[f"{at}.mlp.gate.weight"] = (3, 8)
            for expert in range(3):
                inside = f"{at}.mlp.experts.{expert}"
                shapes |= {f"{inside}.{name}.weight": (6, 8) for name in ("gate_proj", "up_proj")}
                shapes[f"{inside}.down_proj.weight"] = (8, 6)
        elif kind == "gpt_oss":
            shapes[f"{at}.mlp.router.weight"] = (3, 8)
            shapes |= {
                f"{at}.mlp.experts.gate_up_proj": (3, 8, 20),
                f"{at}.mlp.experts.down_proj": (3, 10, 8),
            }
        else:
            shapes[f"{at}.mlp.down_proj.weight"] = (8, 10)
    return shapes


def checkpoint(folder, tensors, **config):
    folder.mkdir()
    safetensors.save(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(FIELDS | config))
    return folder


@pytest.fixture
def pair(tmp_path, request):
    """A base, and the same model with changes of rank 2."""
    kind = getattr(request, "param", "llama")
    rng = np.random.default_rng(0)
    base = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in tensors_of(kind).items()
    }
    tuned = {}
    for name, W in base.items():
        *stack, d, k = (1, *W.shape)[-max(2, W.ndim) :]
        change = rng.standard_normal((*stack, d, 2)) @ rng.standard_normal((*stack, 2, k))
        tuned[name] = W + (0.1 * change).astype(np.float32) if W.ndim > 1 else W
    config = {"model_type": kind, **EXPERTS.get(kind, {})}
    return checkpoint(tmp_path / "base", base, **config), checkpoint(
        tmp_path / "tuned", tuned, **config
    )


@pytest.mark.parametrize("pair", ["llama", "qwen3_moe", "gpt_oss"], indirect=True)
@pytest.mark.parametrize(
    "goal", [{"rank": 32}, {"rank": 4}, {"energy": 0.9999999}, {"tolerance": 0.001}], ids=str
)
def test_merged_into_the_base_it_is_the_tuned_checkpoint(pair, tmp_path, goal):
    found = adapters.extract(*pair, tmp_path / "out", **goal)
    adapters.merge(pair[0], tmp_path / "out", tmp_path / "merged")
    merged, tuned = open_model(tmp_path / "merged"), open_model(pair[1])
    for name in tuned.places:
        np.testing.assert_allclose(merged.read(name), tuned.read(name), atol=2e-3, err_msg=name)
    assert any(f"(modules: {len(found.rows)})" in note for note in found.notes)
    assert {row.kept for row in found.rows} == {"LoRA"}


@pytest.mark.parametrize("pair", ["qwen3_moe", "gpt_oss"], indirect=True)
def test_experts_and_routers_are_parameters(pair, tmp_path):
    adapters.extract(*pair, tmp_path / "out", rank=2)
    adapter = adapters.load(tmp_path / "out")
    parameters = {
        name.rpartition("mlp.")[2]: module for name, module in adapter.items() if module.parameter
    }
    router = (
        "router.weight" if "gpt_oss" in (pair[0] / "config.json").read_text() else "gate.weight"
    )
    assert {*parameters} == {router, "experts.gate_up_proj", "experts.down_proj"}
    assert {module.maps for module in parameters.values()} == {1, 3}
    assert sorted(adapter.raw["target_parameters"]) == sorted(
        n for n, m in adapter.items() if m.parameter
    )


def test_experts_share_the_least_rank_that_keeps_enough_of_all(pair, tmp_path):
    found = adapters.extract(*pair, tmp_path / "out", energy=0.99)
    for row in found.rows:
        assert row.error <= 0.1 + 1e-6
        assert row.rank <= 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda parts: parts | {"B": parts["A"], "A": parts["B"]},  # of a square matrix: transposed
        lambda parts: parts | {"B": wrong(parts["B"], lambda B: 0 * B)},
        lambda parts: parts | {"B": wrong(parts["B"], lambda B: 1.01 * B)},
        lambda parts: parts | {"A": wrong(parts["A"], lambda A: A[::-1])},
    ],
    ids=["transposed", "zero", "longer", "permuted"],
)
def test_a_result_that_is_not_the_tuned_model_is_refused(pair, tmp_path, monkeypatch, spoil):
    right = extraction.balanced

    def balanced(found, path, **dtypes):
        parts = right(found, path, **dtypes)
        if parts["B"].shape != parts["A"].shape[::-1]:
            return parts
        if spoil.__code__.co_names == ():  # exchanged, in their own shapes
            A, B = parts["A"], parts["B"]
            return {"A": wrong(A, lambda _: B.read().T), "B": wrong(B, lambda _: A.read().T)}
        return spoil(parts)

    monkeypatch.setattr(extraction, "balanced", balanced)
    with pytest.raises(
        FileError,
        match=r"base \+ adapter misses the tuned 'model.layers.0.self_attn.q_proj.weight' by",
    ):
        adapters.extract(*pair, tmp_path / "out", rank=2)
    assert not (tmp_path / "out").exists()


def wrong(stored, change):
    return type(stored)(stored.dtype, stored.shape, lambda: change(stored.read()))


def test_a_head_that_is_the_embedding_follows_it(tmp_path):
    rng = np.random.default_rng(1)
    shapes = {
        name: shape for name, shape in tensors_of("llama").items() if name != "lm_head.weight"
    }
    base = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    update = np.outer(rng.standard_normal(20), rng.standard_normal(8)).astype(np.float32)
    tuned = base | {"model.embed_tokens.weight": base["model.embed_tokens.weight"] + update}
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "tie_word_embeddings": True,
    }
    pair = (
        checkpoint(tmp_path / "base", base, **config),
        checkpoint(tmp_path / "tuned", tuned, **config),
    )
    found = adapters.extract(*pair, tmp_path / "out", rank=1)
    adapter = adapters.load(tmp_path / "out")
    assert_near(adapter.delta("lm_head"), update)
    assert_near(adapter.delta("model.embed_tokens"), update.T)
    assert any("lm_head shares the embedding's weight" in note for note in found.notes)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_theta": 5.0}, "rope_theta is 5.0, but 1.0 in"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, but 2 in"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', but 'silu' in"),
        ({"torch_dtype": "float16", "transformers_version": "5"}, None),
    ],
)
def test_models_that_compute_otherwise_are_refused(pair, tmp_path, config, message):
    for folder, more in zip(pair, ({}, config), strict=True):
        said = json.loads((folder / "config.json").read_text())
        said |= {"rope_theta": 1.0, "hidden_act": "silu", **more}
        (folder / "config.json").write_text(json.dumps(said))
    if message:
        with pytest.raises(FileError, match=message):
            adapters.extract(*pair, tmp_path / "out", rank=2)
    adapters.extract(*pair, tmp_path / "out", rank=2, any_base=bool(message))


def test_weights_of_other_widths_are_refused_and_a_larger_vocabulary_is_listed(tmp_path):
    shapes = tensors_of("llama")
    base = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    grown = {
        name: np.full((shape[0] + 3 * (shape[0] == 20), *shape[1:]), 2.0, np.float32)
        for name, shape in shapes.items()
    }
    wider = base | {"model.layers.1.mlp.down_proj.weight": np.ones((8, 11), np.float32)}
    folders = [
        checkpoint(tmp_path / name, tensors, model_type="llama")
        for name, tensors in (("base", base), ("grown", grown), ("wider", wider))
    ]
    with pytest.raises(
        FileError,
        match=r"'model.layers.1.mlp.down_proj.weight' has shape \(8, 11\), but \(8, 10\) in",
    ):
        adapters.extract(folders[0], folders[2], tmp_path / "out", rank=1)
    kept = {
        row.name: row.kept for row in adapters.extract(*folders[:2], tmp_path / "out", rank=1).rows
    }
    assert kept["lm_head.weight"] == kept["model.embed_tokens.weight"] == "not kept"


@pytest.mark.parametrize(
    "goal",
    [
        ("--rank", "2"),
        ("--energy", "0.9"),
        ("--tolerance", "0.3"),
        ("--budget", "6000"),
        ("--total-rank", "9"),
    ],
)
def test_every_goal_of_resize_is_one_of_the_command(pair, tmp_path, capsys, goal):
    out = tmp_path / "out"
    assert run(["extract", *map(str, pair), *goal, "-o", str(out), "--json"]) == 0
    ranks = [row["rank"] for row in json.loads(capsys.readouterr().out)["rows"]]
    adapter = adapters.load(out)
    if goal[0] == "--total-rank":
        assert sum(ranks) == 9
    if goal[0] == "--budget":
        assert (out / "adapter_model.safetensors").stat().st_size <= 6000
    assert sum(module.rank for module in adapter.values()) == sum(ranks)
