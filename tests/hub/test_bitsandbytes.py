"""Checkpoints that bitsandbytes made: read, adapted, merged; and what does not fit is refused."""

import json

import numpy as np
import pytest

from lora_np import Tensor, adapters, inject, language, merge
from lora_np.accounting import count_model, model_spec, training_memory
from lora_np.files import FileError
from lora_np.hub import bitsandbytes_parts, read_bitsandbytes, safetensors
from lora_np.models import open_model
from lora_np.nn import leaves, replace
from lora_np.quantise import BlockScales, Quantised, nf4_levels, quantise
from tests.language.conftest import checkpoint_name
from tests.rounding import assert_near, in_double

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "quantization_config": {"quant_method": "bitsandbytes"},
}
NAME = "model.layers.0.self_attn.q_proj.weight"


def dense():
    rng = np.random.default_rng(0)
    d, kv, inner = 24, 12, 40
    found = {"model.embed_tokens.weight": rng.normal(size=(50, d)), "model.norm.weight": np.ones(d)}
    for i in range(2):
        at = f"model.layers.{i}."
        found |= {
            f"{at}input_layernorm.weight": np.ones(d),
            f"{at}post_attention_layernorm.weight": np.ones(d),
        }
        for name, shape in {
            "self_attn.q_proj": (d, d),
            "self_attn.k_proj": (kv, d),
            "self_attn.v_proj": (kv, d),
            "self_attn.o_proj": (d, d),
            "mlp.gate_proj": (inner, d),
            "mlp.up_proj": (inner, d),
            "mlp.down_proj": (d, inner),
        }.items():
            found[f"{at}{name}.weight"] = rng.normal(size=shape) / 5
    return {name: array.astype(np.float32) for name, array in found.items()}


def parts(name, W, kind, double):
    """The tensors that bitsandbytes writes for one weight."""
    if kind == "int8":
        Q = quantise(W, "int8")
        module = name.removesuffix(".weight")
        return {
            name: Q.codes,
            f"{module}.SCB": Q.scales,
            f"{module}.weight_format": np.array(0, np.uint8),
        }
    Q = quantise(W, "nf4", double=double)
    note = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(W.shape)}
    found = {name: Q.packed[:, None], f"{name}.quant_map": nf4_levels()}
    if isinstance(Q.scales, BlockScales):
        note |= {
            "nested_blocksize": 256,
            "nested_dtype": "float32",
            "nested_offset": float(Q.scales.offset),
        }
        found |= {
            f"{name}.absmax": Q.scales.codes,
            f"{name}.nested_absmax": Q.scales.scales,
            f"{name}.nested_quant_map": Q.scales.levels,
        }
    else:
        found[f"{name}.absmax"] = Q.scales
    raw = np.frombuffer(json.dumps(note).encode(), np.uint8)
    return found | {f"{name}.quant_state.bitsandbytes__nf4": raw}


def write(folder, kind="nf4", double=False, change=None):
    tensors = {}
    for name, W in dense().items():
        tensors |= parts(name, W, kind, double) if "proj" in name else {name: W}
    for name, array in (change or {}).items():
        if array is None:
            del tensors[name]
        else:
            tensors[name] = array
    safetensors.save(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))


@pytest.mark.parametrize(("kind", "double"), [("nf4", False), ("nf4", True), ("int8", False)])
def test_a_checkpoint_is_read_adapted_and_merged(tmp_path, kind, double):
    write(tmp_path, kind, double)
    few, plain = language.load(tmp_path, quantised=True), language.load(tmp_path)
    assert sum(isinstance(a, Quantised) for _, a in leaves(few)) == 14
    expected = dense()
    options = {"double": True} if double else {}
    for paths, a in leaves(plain):
        name = checkpoint_name(paths.split(" = ")[0])
        W = expected[name]
        np.testing.assert_array_equal(
            a, quantise(W, kind, **options).dequantised() if "proj" in name else W
        )
    tokens = np.arange(12)[None]
    np.testing.assert_array_equal(few(tokens), plain(tokens))
    model = inject(few, rank=2, alpha=2, rng=0, targets=lambda path, layer: "self_attn" in path)
    model = replace(model, Tensor, lambda path, a: Tensor(a.data + 0.1))
    language.save(merge(model), tmp_path / "merged")
    again = language.load(tmp_path / "merged")
    assert "quantization_config" not in again.config
    assert_near(again(tokens), in_double(merge(model))(tokens))


@pytest.mark.parametrize(("kind", "double"), [("nf4", False), ("nf4", True), ("int8", False)])
def test_a_checkpoint_is_counted_with_the_bytes_that_it_holds(tmp_path, kind, double):
    write(tmp_path, kind, double)
    spec = model_spec(tmp_path)
    few = training_memory(count_model(spec, rank=2), dtype="nf4")
    assert few.weights == sum(
        leaf.nbytes for _, leaf in leaves(language.load(tmp_path, quantised=True))
    )
    # from headers, where no file describes the family: the packed codes are no shapes, and scales
    # no parameters
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"model_type": "nonsuch"}))
    unknown = model_spec(tmp_path)
    assert unknown.total == spec.total == sum(W.size for W in dense().values())
    assert unknown.quantised == spec.quantised
    trainable = [
        count_model(each, rank=2, targets="all-linear").trainable for each in (spec, unknown)
    ]
    assert trainable[0] == trainable[1]


def test_a_config_is_counted_although_weights_are_missing(tmp_path):
    write(tmp_path)
    total = model_spec(tmp_path).total
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    spec = model_spec(tmp_path)
    assert (spec.total, spec.quantised) == (total, (0, 0))


def test_only_what_is_quantised_is_kept_so(tmp_path):
    safetensors.save(dense(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ValueError, match="holds no quantised weights"):
        language.load(tmp_path, quantised=True)
    assert bitsandbytes_parts(open_model(tmp_path), NAME) == ()


def note(**fields):
    base = {"quant_type": "nf4", "blocksize": 64, "shape": [24, 24]} | fields
    return np.frombuffer(json.dumps(base).encode(), np.uint8)


STATE = f"{NAME}.quant_state.bitsandbytes__nf4"


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("nf4", {f"{NAME}.absmax": None}, "absmax', which is missing"),
        ("nf4", {f"{NAME}.absmax": np.ones(8, np.float32)}, r"must have shape \(9,\), got \(8,\)"),
        ("nf4", {f"{NAME}.absmax": np.ones(9)}, "must be float32, got float64"),
        (
            "nf4",
            {f"{NAME}.quant_map": np.ones(16, np.float32)},
            "its quant_map does not have the levels of nf4",
        ),
        ("nf4", {NAME: np.ones((7, 1), np.uint8)}, "needs 288 bytes, got 7"),
        ("nf4", {STATE: np.frombuffer(b"{", np.uint8)}, "not valid JSON"),
        ("nf4", {STATE: note(quant_type="fp4")}, "does not describe nf4"),
        ("nf4", {STATE: note(shape=[24])}, "shape must be"),
        ("nf4", {STATE: note(shape=[2**40, 1])}, "shape must be"),
        ("nf4", {STATE: note(blocksize=0)}, "blocksize must be between 1 and .*, got 0"),
        (
            "nf4",
            {STATE: note(nested_offset="x", nested_blocksize=256)},
            "nested_offset must be a number",
        ),
        ("int8", {NAME.replace("weight", "SCB"): np.ones(3, np.float32)}, "have scales of shape"),
        ("int8", {NAME: np.ones((24, 24), np.uint8)}, "must be int8, got uint8"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, kind, change, message):
    write(tmp_path, kind, change=change)
    with pytest.raises(FileError, match=message):
        language.load(tmp_path)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("double", [False, True])
def test_what_bitsandbytes_writes_is_read_as_it_reads_it(tmp_path, double):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    import torch
    from bitsandbytes import functional
    from safetensors.torch import save_file

    W = torch.tensor(dense()[NAME])
    packed, state = functional.quantize_4bit(W, quant_type="nf4", compress_statistics=double)
    kept = {f"{NAME}.{key}": value for key, value in state.as_dict(packed=True).items()}
    kept = {key: value.contiguous() for key, value in ({NAME: packed} | kept).items()}
    save_file(kept, tmp_path / "model.safetensors")
    model = open_model(tmp_path)
    assert set(bitsandbytes_parts(model, NAME)) == set(kept)
    ours = read_bitsandbytes(model, NAME).dequantised()
    # their kernel for the CPU is right where rows are as long as a block or odd; its generic one
    # everywhere
    theirs = (
        functional.dequantize_4bit(packed, state).numpy()
        if W.shape[1] >= 64
        else generic(packed, state)
    )
    np.testing.assert_array_equal(ours, theirs)


def generic(packed, state):
    import torch
    from bitsandbytes import functional
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

    absmax = state.absmax
    if state.nested:
        absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    return _dequantize_4bit_compute(
        packed.reshape(-1), absmax, state.code, 64, tuple(state.shape), torch.float32
    ).numpy()


def test_an_adapter_is_inspected_against_it(tmp_path):
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", double=True)
    model = inject(language.load(tmp_path / "base"), rank=2, alpha=2, rng=0, targets=["q_proj"])
    model = replace(model, Tensor, lambda path, a: Tensor(a.data + 0.1))
    adapters.save(model, tmp_path / "adapter")
    found = adapters.inspect(tmp_path / "adapter", base=tmp_path / "base")
    W = quantise(dense()[NAME], "nf4", double=True).dequantised()
    update = merge(model).model.layers[0].self_attn.q_proj.W - W
    assert found.table.records[0]["relative"] == pytest.approx(
        np.linalg.norm(update) / np.linalg.norm(W), rel=1e-4
    )


def shard(folder):
    """The same checkpoint in two shards, the codes of a weight in one and its scales in the
    other.
    """
    whole = folder / "model.safetensors"
    source = safetensors.open(whole)
    tensors = {name: source.read(name) for name in source.tensors}
    names = sorted(tensors)
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        safetensors.save(
            {name: tensors[name] for name in names if places[name] == file}, folder / file
        )
    size = sum(array.nbytes for array in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole.unlink()


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(("kind", "double"), [("nf4", False), ("nf4", True), ("int8", False)])
def test_an_adapter_is_merged_into_it_in_full_precision(tmp_path, kind, double, sharded):
    base = tmp_path / "base"
    base.mkdir()
    write(base, kind, double)
    (base / "config.json").write_text(json.dumps(CONFIG | {"dtype": "bfloat16"}))
    if sharded:
        shard(base)
    model = inject(language.load(base), rank=2, alpha=2, rng=0, targets=["q_proj"])
    model = replace(model, Tensor, lambda path, a: Tensor(a.data + 0.1))
    adapters.save(model, tmp_path / "adapter")
    found = adapters.merge(base, tmp_path / "adapter", tmp_path / "out")
    assert {row.name for row in found.rows} == {NAME, NAME.replace("layers.0", "layers.1")}
    assert all(
        row.dtype == "float32" and row.change > 0.01 and row.rounding < 1e-6 for row in found.rows
    )
    assert (
        "14 weights that bitsandbytes quantised are now in float32, adapted or not" in found.notes
    )
    written = open_model(tmp_path / "out")
    assert set(written.places) == set(dense())
    assert written.config["dtype"] == "float32"
    assert "quantization_config" not in written.config
    if sharded:
        size = sum(4 * array.size for array in dense().values())
        assert written.index["metadata"]["total_size"] == size
    again, tokens = language.load(tmp_path / "out"), np.arange(12)[None]
    assert_near(again(tokens), in_double(merge(model))(tokens))


def test_fp4_is_refused_by_its_name(tmp_path):
    raw = note(quant_type="fp4")
    write(tmp_path, change={STATE: None, f"{NAME}.quant_state.bitsandbytes__fp4": raw})
    with pytest.raises(FileError, match="is in bitsandbytes' fp4: only nf4 and int8 are supported"):
        language.load(tmp_path)
    module = adapters.AdapterModule.of(A=np.ones((1, 24)), B=np.ones((24, 1)), alpha=1)
    made = adapters.Adapter({NAME.removesuffix(".weight"): module})
    adapters.save(made, tmp_path / "adapter")
    for run in (
        lambda: adapters.merge(tmp_path, tmp_path / "adapter", tmp_path / "out"),
        lambda: adapters.inspect(tmp_path / "adapter", base=tmp_path),
    ):
        with pytest.raises(FileError, match="is in bitsandbytes' fp4"):
            run()


def test_a_gguf_is_not_merged_into_by_file_and_the_message_says_what_can_be_done(tmp_path):
    (tmp_path / "s.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        FileError, match=r"s.gguf: a GGUF file: adapters.merge_gguf .lora-np merge -o NEW.gguf"
    ):
        adapters.merge(tmp_path / "s.gguf", tmp_path / "adapter", tmp_path / "out")


def test_int8_codes_in_tiles_are_refused(tmp_path):
    tensors = {"fc.weight": np.zeros((32, 64), np.int8), "fc.SCB": np.ones(32, np.float32)}
    for form in (0, 1, 2, 3):
        path = tmp_path / f"{form}.safetensors"
        safetensors.save({**tensors, "fc.weight_format": np.uint8(form)}, path)
        if form == 0:
            read_bitsandbytes(open_model(path), "fc.weight")
        else:
            with pytest.raises(FileError, match="its int8 codes are not in rows"):
                read_bitsandbytes(open_model(path), "fc.weight")
