"""`extract` by the parameters of the live model, and the check of its own result."""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import extraction
from lora_np.adapters.peft_format import WEIGHTS
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


@pytest.mark.parametrize("grown", [0, 2])
def test_a_head_that_is_no_longer_the_embedding_is_saved(tmp_path, grown):
    rng = np.random.default_rng(1)
    tuned = {name: rng.standard_normal(shape) for name, shape in tensors_of("llama").items()}
    base = {name: W for name, W in tuned.items() if name != "lm_head.weight"}
    table = base["model.embed_tokens.weight"]
    tuned["lm_head.weight"] = table + np.isin(np.arange(20), (3, 7))[:, None]
    if grown:
        new = np.vstack([table + 1, rng.standard_normal((grown, 8))])
        tuned |= {"lm_head.weight": new, "model.embed_tokens.weight": new}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    pair = (
        checkpoint(tmp_path / "base", base, **config, tie_word_embeddings=True),
        checkpoint(tmp_path / "tuned", tuned, **config, vocab_size=20 + grown),
    )
    adapters.extract(*pair, tmp_path / "out", rank=1, save_others=True)
    adapters.merge(pair[0], tmp_path / "out", tmp_path / "merged")
    merged = open_model(tmp_path / "merged")
    for name, W in tuned.items():
        np.testing.assert_array_equal(merged.read(merged.tied.get(name, name)), W)


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_extracting_what_was_merged_gives_it_back(make_adapter, make_checkpoint, tmp_path, dtype):
    path, base = make_adapter("a"), make_checkpoint("base", dtype=dtype)
    adapters.merge(base, path, tmp_path / "tuned")
    table = adapters.extract(base, tmp_path / "tuned", tmp_path / "out", rank=2).table
    before, after = adapters.load(path), adapters.load(tmp_path / "out")
    assert {*before} == {*after}
    rounding = {"float32": 1e-6, "bfloat16": 0.02}[dtype]
    for name in before:
        np.testing.assert_allclose(
            after.delta(name), before.delta(name), atol=rounding * np.abs(before.delta(name)).max()
        )
        assert {part.dtype for part in after[name].parts.values()} == {dtype}
    assert all(row["relative error"] < rounding for row in table.records)


def test_the_error_left_and_the_rank_for_an_energy_are_those_of_the_svd(tmp_path):
    rng = np.random.default_rng(1)
    base, tuned = rng.standard_normal((2, 60, 50))
    for name, weight in (("base", base), ("tuned", tuned)):
        (tmp_path / name).mkdir()
        safetensors.save({"q.weight": weight}, tmp_path / name / "model.safetensors")
    squares = np.square(np.linalg.svdvals(tuned - base))
    table = adapters.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "rank", rank=7).table
    assert table.records[0]["relative error"] == pytest.approx(
        (squares[7:].sum() / squares.sum()) ** 0.5
    )
    assert table.records[0]["norm"] == pytest.approx(squares.sum() ** 0.5)
    table = adapters.extract(
        tmp_path / "base", tmp_path / "tuned", tmp_path / "energy", energy=0.8
    ).table
    assert table.records[0]["rank"] == 1 + int(np.argmax(squares.cumsum() >= 0.8 * squares.sum()))
    adapters.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "bytes", budget=9_000)
    assert 8_000 < (tmp_path / "bytes" / WEIGHTS).stat().st_size <= 9_000


@pytest.mark.parametrize(
    ("true_rank", "energy"), [(40, 1 - 1e-9), (40, 0.5), (320, 0.9), (320, 1.0)]
)
def test_an_energy_is_kept_by_as_few_directions_as_the_svd_says(tmp_path, true_rank, energy):
    rng = np.random.default_rng(2)  # 40 directions are searched for, many more take a whole SVD
    change = rng.standard_normal((400, true_rank)) @ rng.standard_normal((true_rank, 320))
    for name, weight in (("base", np.zeros((400, 320))), ("tuned", change)):
        (tmp_path / name).mkdir()
        safetensors.save(
            {"q.weight": weight.astype(np.float32)}, tmp_path / name / "model.safetensors"
        )
    table = adapters.extract(
        tmp_path / "base", tmp_path / "tuned", tmp_path / "out", energy=energy
    ).table
    squares = np.square(np.linalg.svdvals(change))
    lost = np.maximum(squares.sum() - squares.cumsum(), 0) / squares.sum()
    hidden = 4 * 321**0.5 * float(np.finfo(np.float32).eps)  # see rank_within
    enough = np.sqrt(lost) <= (1 - energy) ** 0.5 + hidden
    assert table.records[0]["rank"] == 1 + int(np.argmax(enough))
    error = np.linalg.norm(adapters.load(tmp_path / "out").delta("q") - change) / np.linalg.norm(
        change
    )
    assert table.records[0]["relative error"] == pytest.approx(error, rel=1e-4, abs=3e-6)
    assert error <= (1 - energy) ** 0.5 + hidden


def test_what_differs_but_carries_no_lora_is_listed_and_kept_when_asked(
    make_adapter, make_checkpoint, tmp_path
):
    base, tuned = make_checkpoint("base"), make_checkpoint("tuned", seed=2)
    table = adapters.extract(base, tuned, tmp_path / "out", rank=1).table
    kept = {row["tensor"]: row["kept as"] for row in table.records}
    assert kept["model.norm.weight"] == kept["model.layers.0.q_proj.bias"] == "not kept"
    assert kept["model.layers.0.q_proj.weight"] == "LoRA"
    assert "save_others" in table.notes[1]
    made = adapters.extract(base, tuned, tmp_path / "full", rank=1, save_others=True)
    for name in kept:
        if kept[name] == "not kept":
            kept[name] = "bias" if name.endswith("bias") else "in full"
    assert {row["tensor"]: row["kept as"] for row in made.table.records} == kept
    assert {row["kept as"] for row in made.parts.records} == {"LoRA", "bias", "in full"}


def test_norms_are_kept_beside_a_lora(make_checkpoint, tmp_path):
    base, tuned = make_checkpoint("base", shards=1), make_checkpoint("tuned", shards=1)
    file = safetensors.open(tuned / "model.safetensors")
    tensors = {name: file.read(name) for name in file.tensors}
    tensors["model.norm.weight"] += 1
    tensors["model.layers.0.q_proj.weight"] += np.outer(np.ones(6), [1, 2, 3, 4]).astype(np.float32)
    safetensors.save(tensors, tuned / "model.safetensors")
    table = adapters.extract(base, tuned, tmp_path / "out", energy=0.99, save_others=True).table
    assert [(row["tensor"], row["kept as"], row["rank"]) for row in table.records] == [
        ("model.layers.0.q_proj.weight", "LoRA", 1),
        ("model.norm.weight", "in full", None),
    ]
    adapters.merge(base, tmp_path / "out", tmp_path / "merged")
    merged = open_model(tmp_path / "merged")
    for name in tensors:
        np.testing.assert_allclose(merged.read(name), tensors[name], atol=1e-5)


def test_one_goal_is_wanted_and_all_are_named(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"give one of rank, energy, tolerance, budget, total_rank, got none of them",
    ):
        adapters.extract(tmp_path, tmp_path, tmp_path / "out")
    with pytest.raises(
        ValueError,
        match=r"one of rank, energy, tolerance, budget, total_rank, got rank and tolerance",
    ):
        adapters.resize(tmp_path, tmp_path / "out", rank=1, tolerance=0.1)


def test_equal_or_unrelated_checkpoints_are_refused(make_checkpoint, tmp_path):
    base = make_checkpoint("base")
    with pytest.raises(FileError, match="no weight matrix differs"):
        adapters.extract(base, make_checkpoint("same"), tmp_path / "out", rank=1)
    (tmp_path / "other").mkdir()
    safetensors.save({"x": np.ones(1)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(FileError, match="has no tensor in common"):
        adapters.extract(base, tmp_path / "other", tmp_path / "out", rank=1)


def test_a_difference_that_is_not_finite_is_refused_by_name(make_checkpoint, tmp_path):
    base, tuned = make_checkpoint("base", shards=1), make_checkpoint("tuned", shards=1)
    file = safetensors.open(tuned / "model.safetensors")
    tensors = {name: file.read(name) for name in file.tensors}
    tensors["model.layers.0.q_proj.weight"][0, 0] = np.inf
    safetensors.save(tensors, tuned / "model.safetensors")
    with pytest.raises(
        FileError, match=r"the change of 'model.layers.0.q_proj.weight': M must be finite, got inf"
    ):
        adapters.extract(base, tuned, tmp_path / "out", rank=1)
