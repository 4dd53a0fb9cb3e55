"""Convolutions, experts, rows of embeddings: what PEFT does with each, written out in loops, and
every operation.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models import peft

PREFIX = "base_model.model."
KINDS = {
    # name, shapes of A and B in the file, rank, the parameter's shape
    "linear": ("q", (2, 5), (4, 2), 2, (4, 5)),
    "convolution along a line": ("c1", (2, 3, 4), (5, 2, 1), 2, (5, 3, 4)),
    "convolution of a plane": ("c2", (2, 3, 2, 3), (5, 2, 1, 1), 2, (5, 3, 2, 3)),
    "convolution of a volume": ("c3", (3, 1, 2, 1, 2), (2, 3, 1, 1, 1), 3, (2, 1, 2, 1, 2)),
    "convolution in groups": ("g", (4, 6, 2, 2), (10, 2, 1, 1), 4, None),
    "experts": ("mlp.experts.down_proj", (6, 5), (4, 6), 2, (3, 4, 5)),
    "one expert": ("mlp.router.weight", (2, 5), (4, 2), 2, (4, 5)),
}


def save_peft(path, name, A, B, *, rank, **raw):
    """An adapter's directory as PEFT writes it, from tensors of PEFT's shapes."""
    path.mkdir()
    is_parameter = name.endswith(("_proj", ".weight"))
    holder = name.rpartition(".")[0] if is_parameter else name
    targets = (
        {"target_modules": [], "target_parameters": [name]}
        if is_parameter
        else {"target_modules": [name]}
    )
    tensors = {f"{PREFIX}{holder}.lora_A.weight": A, f"{PREFIX}{holder}.lora_B.weight": B}
    safetensors.save(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 3, **targets, **raw}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def update(A, B, rank, alpha=3):
    """B A as torch's convolutions and PEFT's ParamWrapper have it, entry by entry."""
    scale = alpha / rank
    if A.ndim == 2 and A.shape[0] == rank:
        return scale * B @ A
    if A.ndim == 2:
        experts = A.shape[0] // rank
        return np.stack(
            [
                scale * sum(np.outer(B[:, j * experts + e], A[e * rank + j]) for j in range(rank))
                for e in range(experts)
            ]
        )
    per_group = B.shape[1]
    groups = A.shape[0] // per_group
    delta = np.zeros((B.shape[0], *A.shape[1:]))
    for out in range(B.shape[0]):
        group = out // (B.shape[0] // groups)
        for j in range(per_group):
            delta[out] += scale * B[out, j].item() * A[group * per_group + j]
    return delta


@pytest.fixture(params=KINDS)
def case(request, tmp_path):
    name, of_A, of_B, rank, shape = KINDS[request.param]
    rng = np.random.default_rng(len(request.param))
    A, B = rng.standard_normal(of_A), rng.standard_normal(of_B)
    path = save_peft(tmp_path / "adapter", name, A, B, rank=rank)
    return name, A, B, rank, shape, path


def test_updates_are_what_peft_computes(case):
    name, A, B, rank, _, path = case
    adapter = adapters.load(path)
    assert list(adapter) == [name]
    assert adapter[name].rank == rank
    np.testing.assert_allclose(adapter.delta(name), update(A, B, rank), atol=1e-12)
    assert f"{A.size + B.size:,} parameters" in repr(adapter)


def test_what_is_saved_is_what_was_read(case, tmp_path):
    *_, path = case
    adapters.save(adapters.load(path), tmp_path / "again")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if file.endswith("json"):
            old, new = (
                json.loads((folder / file).read_text()) for folder in (path, tmp_path / "again")
            )
            assert new == {**old, **{key: new[key] for key in new.keys() - old.keys()}}
            continue
        old, new = (safetensors.open(folder / file) for folder in (path, tmp_path / "again"))
        assert old.tensors.keys() == new.tensors.keys()
        for key in old.tensors:
            np.testing.assert_array_equal(old.read(key), new.read(key))


def test_resizing_leaves_the_best_of_each_map(case, tmp_path):
    name, A, B, rank, _, path = case
    full = update(A, B, rank)
    module = adapters.load(path)[name]
    result = adapters.resize(path, tmp_path / "small", rank=module.groups)
    small = adapters.load(tmp_path / "small")
    maps = (
        full.reshape(module.maps, -1, full.shape[-1])
        if name.endswith("_proj")
        else full.reshape(module.maps, len(full) // module.maps, -1)
    )
    U, s, Vh = np.linalg.svd(maps, full_matrices=False)
    best = (U[..., :1] * s[:, None, :1]) @ Vh[:, :1]
    np.testing.assert_allclose(small.delta(name), best.reshape(full.shape), atol=1e-6)
    assert small[name].rank == result.rows[0].rank == module.groups
    error = np.linalg.norm(full - best.reshape(full.shape)) / np.linalg.norm(full)
    assert result.rows[0].error == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("method", ["cat", "svd"])
def test_sums_add_the_updates(case, method, tmp_path):
    name, A, B, rank, _, path = case
    other = save_peft(tmp_path / "other", name, A[::-1].copy(), 2 * B, rank=rank)
    module = adapters.load(path)[name]
    adapters.combine(
        [path, other],
        tmp_path / "sum",
        weights=[0.5, -1.5],
        method=method,
        rank=None if method == "cat" else 2 * module.rank,
    )
    wanted = 0.5 * update(A, B, rank) - 1.5 * update(A[::-1], 2 * B, rank)
    np.testing.assert_allclose(adapters.load(tmp_path / "sum").delta(name), wanted, atol=1e-6)
    assert adapters.load(tmp_path / "sum")[name].rank <= 2 * module.rank


def test_a_rank_of_a_sum_is_shared_among_groups(case, tmp_path):
    path = case[-1]
    [module] = adapters.load(path).values()
    made = adapters.combine([path, path], tmp_path / "sum", method="svd", rank=module.groups)
    assert made.rows[0].rank == module.groups


def test_diff_sees_the_maps_and_not_the_factors(case, tmp_path):
    name, A, B, rank, _, path = case
    same = save_peft(tmp_path / "same", name, -3 * A, B / -3, rank=rank)
    other = save_peft(tmp_path / "other", name, A, 1.01 * B, rank=rank)
    assert adapters.diff(path, same).largest < 1e-6
    assert adapters.diff(path, other).largest == pytest.approx(0.01 / 1.01, rel=1e-3)


def base_with(path, tensors, **config):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    safetensors.save(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def merged(folder):
    file = safetensors.open(folder / "model.safetensors")
    return {name: file.read(name) for name in file.tensors}


def test_merging_adds_the_update(case, tmp_path):
    name, A, B, rank, shape, path = case
    parameter = name if name.endswith(("_proj", ".weight")) else f"{name}.weight"
    if shape is None:
        base = base_with(tmp_path / "base", {parameter: np.zeros((10, 3, 2, 2), np.float32)})
        with pytest.raises(FileError, match=r"a convolution in 2 groups cannot be merged"):
            adapters.merge(base, path, tmp_path / "merged")
        return
    W = np.random.default_rng(7).standard_normal(shape)
    adapters.merge(base_with(tmp_path / "base", {parameter: W}), path, tmp_path / "merged")
    np.testing.assert_allclose(
        merged(tmp_path / "merged")[parameter], W + update(A, B, rank), atol=1e-12
    )


def test_a_base_of_other_widths_is_refused(case, tmp_path):
    name, _, _, _, shape, path = case
    if shape is None:
        return
    parameter = name if name.endswith(("_proj", ".weight")) else f"{name}.weight"
    base = base_with(tmp_path / "base", {parameter: np.zeros((*shape[:-1], shape[-1] + 1))})
    with pytest.raises(FileError, match="does not fit an update of shape"):
        adapters.merge(base, path, tmp_path / "merged")


EXPERTS, RANK = 3, 2


@pytest.mark.parametrize(("kind", "transposed"), [("gpt_oss", True), ("qwen3_moe", False)])
@pytest.mark.parametrize("k", [4, 6])
def test_where_a_model_has_inputs_before_outputs_the_update_is_transposed(
    kind, transposed, k, tmp_path
):
    rng = np.random.default_rng(k)
    A, B = rng.standard_normal((EXPERTS * RANK, k)), rng.standard_normal((4, EXPERTS * RANK))
    name = "model.layers.0.mlp.experts.down_proj"
    path = save_peft(tmp_path / "adapter", name, A, B, rank=RANK)
    delta = update(A, B, RANK)
    delta = delta.swapaxes(1, 2) if transposed else delta
    base = base_with(tmp_path / "base", {name: np.ones(delta.shape)}, model_type=kind)
    adapters.merge(base, path, tmp_path / "merged")
    np.testing.assert_allclose(merged(tmp_path / "merged")[name], 1 + delta, atol=1e-12)


def two_parameters(path, rng, *, up="gate_up_proj"):
    """PEFT's wrapper of ``down_proj`` around that of ``gate_up_proj``."""
    shapes = {
        "base_layer.": ((EXPERTS * RANK, 5), (8, EXPERTS * RANK)),
        "": ((EXPERTS * RANK, 4), (5, EXPERTS * RANK)),
    }
    experts = f"{PREFIX}model.layers.0.mlp.experts."
    tensors = {
        f"{experts}{wrapped}lora_{part}.weight": rng.standard_normal(shape)
        for wrapped, both in shapes.items()
        for part, shape in zip("AB", both, strict=True)
    }
    path.mkdir()
    safetensors.save(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 3,
        "target_modules": None,
        "target_parameters": [f"mlp.experts.{up}", "mlp.experts.down_proj"],
    }
    (path / "adapter_config.json").write_text(json.dumps(config))
    return {key.removeprefix(experts): array for key, array in tensors.items()}


def test_experts_that_a_checkpoint_holds_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    t = two_parameters(tmp_path / "adapter", rng)
    layer = "model.layers.0.block_sparse_moe.experts"
    W = {
        f"{layer}.{e}.{name}.weight": rng.standard_normal(shape)
        for e in range(EXPERTS)
        for name, shape in {"w1": (4, 5), "w3": (4, 5), "w2": (5, 4)}.items()
    }
    base = base_with(tmp_path / "base", W, model_type="mixtral")
    adapters.merge(base, tmp_path / "adapter", tmp_path / "merged")
    up = update(t["base_layer.lora_A.weight"], t["base_layer.lora_B.weight"], RANK)
    down = update(t["lora_A.weight"], t["lora_B.weight"], RANK)
    for name, new in merged(tmp_path / "merged").items():
        e = int(name.split(".")[5])
        delta = {"w1": up[e, :4], "w3": up[e, 4:], "w2": down[e]}[name.split(".")[6]]
        np.testing.assert_allclose(new, W[name] + delta, atol=1e-12)


def test_parameters_of_one_module_are_told_apart(tmp_path):
    two_parameters(tmp_path / "adapter", np.random.default_rng(1))
    adapter = adapters.load(tmp_path / "adapter")
    shapes = {name.rpartition(".")[2]: module.shape for name, module in adapter.items()}
    assert shapes == {"gate_up_proj": (3, 8, 5), "down_proj": (3, 5, 4)}
    adapters.save(adapter, tmp_path / "again")
    assert adapters.diff(tmp_path / "adapter", tmp_path / "again").largest == 0
    dropped = adapters.resize(tmp_path / "adapter", tmp_path / "small", total_rank=1).rows
    assert sorted(row.rank for row in dropped) == [0, 1]
    assert len(adapters.load(tmp_path / "small")) == 1


def test_a_parameter_that_is_not_in_the_file_is_asked_for(tmp_path):
    two_parameters(tmp_path / "adapter", np.random.default_rng(1))
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(
        config.read_text().replace(
            '"mlp.experts.down_proj"', '"mlp.experts.other", "experts.down_proj"'
        )
    )
    with pytest.raises(
        FileError, match="has factors of 2 parameters, but target_parameters selects 3"
    ):
        adapters.load(tmp_path / "adapter")


def with_rows(path, *, tokens=(3, 1), d=4, named="embed_tokens", seed=0, **raw):
    rng = np.random.default_rng(seed)
    tensors = {
        f"{PREFIX}model.q.lora_A.weight": rng.standard_normal((2, d)),
        f"{PREFIX}model.q.lora_B.weight": rng.standard_normal((5, 2)),
        f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": rng.standard_normal(
            (len(tokens), d)
        ),
    }
    path.mkdir()
    safetensors.save(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
    said = list(tokens) if named is None else {named: list(tokens)}
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["q"],
        "trainable_token_indices": said,
    }
    (path / "adapter_config.json").write_text(json.dumps({**config, **raw}))
    return tensors[f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta"]


def test_trained_tokens_belong_to_the_module_that_is_named():
    said = {"embed_tokens": [1, 2], "lm_head": [3]}
    config = peft.parse(Path("adapter"), {"peft_type": "LORA", "trainable_token_indices": said})
    assert config.tokens_of("model.embed_tokens") == (1, 2)
    assert config.tokens_of("lm_head") == (3,)
    assert config.tokens_of("model.wpe") is None


def tied_base(path, d=4):
    rng = np.random.default_rng(9)
    W = {
        "model.q.weight": rng.standard_normal((5, d)),
        "model.embed_tokens.weight": rng.standard_normal((6, d)),
    }
    return base_with(path, W, architectures=["LlamaForCausalLM"], tie_word_embeddings=True), W


@pytest.mark.parametrize("named", ["embed_tokens", None])
def test_rows_of_an_embedding_are_replaced_and_a_tied_head_stays_tied(named, tmp_path):
    rows = with_rows(tmp_path / "adapter", named=named)
    base, W = tied_base(tmp_path / "base")
    for folder in ("adapter", "again"):
        if folder == "again":
            adapters.save(adapters.load(tmp_path / "adapter"), tmp_path / folder)
        adapters.merge(base, tmp_path / folder, tmp_path / "merged", force=True)
        new = merged(tmp_path / "merged")
        assert new.keys() == W.keys()
        embedding = W["model.embed_tokens.weight"].copy()
        embedding[[3, 1]] = rows
        np.testing.assert_array_equal(new["model.embed_tokens.weight"], embedding)


def test_rows_survive_resize_and_combine_and_are_compared(tmp_path):
    with_rows(tmp_path / "a")
    with_rows(tmp_path / "b", seed=1)
    with_rows(tmp_path / "c", tokens=(3, 2))
    adapters.resize(tmp_path / "a", tmp_path / "small", rank=1)
    parts = {
        part.what: part.difference
        for part in adapters.diff(tmp_path / "a", tmp_path / "small").rows
    }
    assert parts["rows"] == 0 < parts["update"]
    for other, least in (("b", 0.1), ("c", 1)):
        rows = adapters.diff(tmp_path / "a", tmp_path / other).rows
        assert next(part.difference for part in rows if part.what == "rows") >= least
    with pytest.raises(
        FileError, match=r"replaces 'model.embed_tokens.weight', as an earlier adapter does"
    ):
        adapters.combine([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    save_peft(tmp_path / "plain", "model.q", np.ones((2, 4)), np.ones((5, 2)), rank=2)
    adapters.combine([tmp_path / "plain", tmp_path / "a"], tmp_path / "both")
    assert adapters.load(tmp_path / "both").rows["model.embed_tokens.weight"].tokens == (3, 1)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((3, 9), "does not have the rows that .* replaces: up to 9"),
        ((1, 1), "different whole numbers"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tokens, message, tmp_path):
    with_rows(tmp_path / "adapter", tokens=tokens)
    with pytest.raises(FileError, match=message):
        adapters.merge(tied_base(tmp_path / "base")[0], tmp_path / "adapter", tmp_path / "merged")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"use_bdlora": {"target_modules_bd_a": ["q"], "nblocks": 2}}, "stores factors as blocks"),
        ({"kasa_config": {"beta": 1e-4}}, "takes the least singular directions out of the base"),
        ({"monteclora_config": {"num_samples": 2}}, "draws its updates at random"),
        ({"layer_replication": [[0, 2]]}, "some of its layers repeated"),
    ],
)
def test_what_no_update_of_weights_can_say_is_refused_with_the_reason(raw, reason, tmp_path):
    path = save_peft(tmp_path / "adapter", "q", np.ones((1, 2)), np.ones((2, 1)), rank=1, **raw)
    with pytest.raises(FileError, match=f"{next(iter(raw))} = .* is not supported: .*{reason}"):
        adapters.load(path)


def test_an_alora_is_read_resized_and_inspected_but_never_made_an_update_of_weights(tmp_path):
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(2, 5)), rng.normal(size=(4, 2))
    tokens = {"alora_invocation_tokens": [7, 7, 3]}
    path = save_peft(tmp_path / "alora", "q", A, B, rank=2, **tokens)
    plain = save_peft(tmp_path / "plain", "q", A, B, rank=2)
    (tmp_path / "base").mkdir()
    safetensors.save({"q.weight": np.eye(4, 5)}, tmp_path / "base" / "model.safetensors")
    np.testing.assert_array_equal(adapters.load(path).delta("q"), adapters.load(plain).delta("q"))
    seen = adapters.inspect(path, base=tmp_path / "base")
    assert seen.rows == adapters.inspect(plain, base=tmp_path / "base").rows
    assert "from its invocation tokens on (aLoRA)" in str(seen.contents_table)
    adapters.resize(path, tmp_path / "small", rank=1)
    adapters.convert(path, tmp_path / "copy", to="peft")
    for name in ("small", "copy"):
        assert adapters.load(tmp_path / name).raw["alora_invocation_tokens"] == [7, 7, 3]
        assert adapters.load(tmp_path / name)["q"].alora
    reason = "aLoRA applies only from its invocation tokens on, which no change of the weights can express"
    for refused in (
        lambda: adapters.merge(tmp_path / "base", path, tmp_path / "out"),
        lambda: adapters.combine([path, plain], tmp_path / "out"),
        lambda: adapters.combine([path, path], tmp_path / "out"),
        lambda: adapters.attach({"q": lnp.Linear(np.eye(4, 5))}, path),
    ):
        with pytest.raises(FileError, match=reason):
            refused()
    ends = {"gguf": "a.gguf", "kohya": "a.safetensors"}
    for to in ("portable", "gguf", "mlx", "kohya"):
        with pytest.raises(
            FileError, match=r"invocation tokens \(aLoRA\), which .* cannot express"
        ):
            adapters.convert(path, tmp_path / ends.get(to, to), to=to, base={"model_type": "llama"})
    said = {row.runtime: (row.status, row.why) for row in adapters.check(path).rows}
    assert said["vllm"] == ("refused", "aLoRA (0.30.0 applies it to all tokens)")
    assert said["sglang"] == ("not known", "invocation tokens (aLoRA) were not tried")
    assert "aLoRA" not in said.pop("peft")[1]
    assert "fine" not in {status for status, _ in said.values()}


def test_attention_that_torch_computes_by_itself_is_refused_by_name(tmp_path):
    path = save_peft(tmp_path / "adapter", "mha", np.ones((1, 2)), np.ones((6, 1)), rank=1)
    file = safetensors.open(path / "adapter_model.safetensors")
    tensors = {key: file.read(key) for key in file.tensors}
    tensors[f"{PREFIX}mha.base_layer.out_proj.lora_A.weight"] = np.ones((1, 2))
    safetensors.save(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FileError, match="adapts torch's MultiheadAttention"):
        adapters.load(path)


@pytest.mark.parametrize(
    ("raw", "dropped"),
    [
        ({"exclude_modules": ["layers.0.q"]}, True),
        ({"exclude_modules": r".*\.0\..*"}, True),
        ({"modules_to_save": ["layers.0"]}, True),
        ({"layers_to_transform": [1], "layers_pattern": "layers"}, True),
        ({"layers_to_transform": [0], "layers_pattern": "h"}, True),
        ({"layers_to_transform": [0], "layers_pattern": ["h", "layers"]}, False),
        ({"exclude_modules": ["layers.1.q"], "layers_to_transform": 0}, False),
    ],
)
def test_modules_that_peft_drops_are_called_out(raw, dropped, tmp_path):
    A, B = np.ones((1, 2)), np.ones((2, 1))
    path = save_peft(
        tmp_path / "adapter", "model.layers.0.q", A, B, rank=1, **{"target_modules": ["q"], **raw}
    )
    if dropped:
        with pytest.raises(
            FileError, match="is not among the config's target_modules; PEFT would ignore it"
        ):
            adapters.load(path)
    else:
        assert list(adapters.load(path)) == ["model.layers.0.q"]


def test_mica_is_no_longer_mica_when_its_directions_change(tmp_path):
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((2, 5)), rng.standard_normal((4, 2))
    path = save_peft(tmp_path / "adapter", "q", A, B, rank=2, init_lora_weights="mica")
    adapters.save(adapters.load(path), tmp_path / "again")
    assert adapters.load(tmp_path / "again").raw["init_lora_weights"] == "mica"
    adapters.resize(path, tmp_path / "small", rank=1)
    assert adapters.load(tmp_path / "small").raw["init_lora_weights"] is True
