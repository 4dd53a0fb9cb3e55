"""Merge adapters into small checkpoints, against formed sums."""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import in_memory
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models import open_model
from tests.adapters.conftest import directory


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shards", [1, 3])
def test_merged_weights_are_the_sum_rounded_once(
    make_adapter, make_checkpoint, tmp_path, dtype, shards
):
    path, base = make_adapter("a"), make_checkpoint("base", dtype=dtype, shards=shards)
    table = adapters.merge(base, path, tmp_path / "out").table
    adapter, before, after = adapters.load(path), open_model(base), open_model(tmp_path / "out")
    assert dict(before.places) == dict(after.places)
    for name in before.places:
        assert before.info(name).dtype == after.info(name).dtype
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module in adapter:
            exact = before.read(name).astype(np.float64) + adapter.delta(module)
            one_unit = (
                2
                * np.abs(exact).max()
                * {"float64": 1e-7, "float32": 6e-8, "bfloat16": 2**-8, "float16": 2**-11}[dtype]
            )
            np.testing.assert_allclose(after.read(name), exact, atol=one_unit)
        else:
            assert after.read(name).tobytes() == before.read(name).tobytes()
    assert {row["tensor"] for row in table.records} == {f"{name}.weight" for name in adapter}
    old, new = directory(base), directory(tmp_path / "out")
    assert old["tokenizer.json"] == new["tokenizer.json"]
    config = json.loads(new["config.json"])
    assert len(config.pop("merged_adapters")) == 64
    assert config == json.loads(old["config.json"])
    for name, file in before.files.items():
        assert after.files[name].metadata == file.metadata


def test_rounding_errors_are_those_of_the_stored_numbers(make_adapter, make_checkpoint, tmp_path):
    base = make_checkpoint("base", dtype="bfloat16")
    table = adapters.merge(base, make_adapter("a"), tmp_path / "out").table
    before, after = open_model(base), open_model(tmp_path / "out")
    adapter = adapters.load(tmp_path / "a")
    for row in table.records:
        name = row["tensor"]
        exact = before.read(name) + adapter.delta(name.removesuffix(".weight"))
        assert row["rounding error"] == pytest.approx(
            np.abs(after.read(name) - exact).max(), rel=1e-3
        )
        assert row["largest change"] == pytest.approx(
            np.abs(after.read(name) - before.read(name)).max()
        )


def test_weights_in_other_forms_are_left_out_by_name_and_other_files_copied(
    make_adapter, make_checkpoint, tmp_path
):
    base = make_checkpoint("base")
    (base / "templates").mkdir()
    (base / "templates" / "chat.jinja").write_text("hello")
    (base / ".git").mkdir()
    (base / ".git" / "HEAD").write_text("ref")
    for name in (
        "pytorch_model.bin",
        "tf_model.h5",
        "pytorch_model.bin.index.json",
        "consolidated.safetensors",
    ):
        (base / name).write_bytes(b"unmerged")
    make_adapter("a").rename(base / "an-adapter")
    table = adapters.merge(base, make_adapter("a"), tmp_path / "out").table
    names = {
        str(path.relative_to(tmp_path / "out"))
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert names == {
        "config.json", "tokenizer.json", "templates/chat.jinja", "model.safetensors.index.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    }  # fmt: skip
    assert (
        "pytorch_model.bin, pytorch_model.bin.index.json, tf_model.h5, an-adapter/"
        in table.notes[-1]
    )


def test_a_result_that_is_not_finite_is_refused(make_checkpoint, tmp_path):
    module = AdapterModule.of(A=np.full((1, 4), 300.0), B=np.full((6, 1), 300.0), alpha=1)
    adapters.save(Adapter({"model.layers.0.q_proj": module}), tmp_path / "a")
    with pytest.raises(
        FileError,
        match=r"'model.layers.0.q_proj.weight' is not finite after merging in dtype float16",
    ):
        adapters.merge(make_checkpoint("base", dtype="float16"), tmp_path / "a", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_differ_by_the_models_prefix_are_found(make_checkpoint, make_adapter, tmp_path):
    bare = {
        name.removeprefix("model."): shape
        for name, shape in {"model.layers.0.q_proj": (6, 4)}.items()
    }
    with_head = make_adapter("with", shapes={"model.layers.0.q_proj": (6, 4)})
    body = make_adapter("body", shapes=bare)
    with pytest.warns(UserWarning, match="a prefix of another model"):
        adapters.merge(make_checkpoint("bare", shapes=bare), with_head, tmp_path / "one")
    with pytest.warns(UserWarning, match="a prefix of another model"):
        adapters.merge(make_checkpoint("whole"), body, tmp_path / "two")


@pytest.mark.parametrize("config", [{}, {"dtype": "float32"}, {"torch_dtype": "float32"}])
def test_a_dtype_is_recorded(make_adapter, make_checkpoint, tmp_path, config):
    base = make_checkpoint("base", config=config)
    adapters.merge(base, make_adapter("a"), tmp_path / "out", dtype="bfloat16")
    new = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: new[key] for key in new if "dtype" in key} == dict.fromkeys(
        config or ["torch_dtype"], "bfloat16"
    )
    (base / "config.json").unlink()  # nothing to record it in
    adapters.merge(base, tmp_path / "a", tmp_path / "bare", dtype="bfloat16", any_base=True)
    assert not (tmp_path / "bare" / "config.json").exists()


MISFITS = {
    "a module that the base lacks": (
        {"model.layers.7.q_proj": (6, 4)},
        {},
        r"has no 'model.layers.7.q_proj.weight', which .* adapts as 'model.layers.7.q_proj'; close names: model.layers",
    ),
    "another shape": (
        {"model.layers.0.q_proj": (6, 5)},
        {},
        r"'model.layers.0.q_proj.weight' of shape \(6, 4\) does not fit an update of shape \(6, 5\)",
    ),
    "stored the other way round": (
        {"model.layers.0.q_proj": (4, 6)},
        {},
        "it is stored transposed, which needs fan_in_fan_out",
    ),
}


@pytest.mark.parametrize(("shapes", "options", "message"), MISFITS.values(), ids=MISFITS)
def test_an_adapter_that_does_not_fit_the_base_is_refused(
    make_adapter, make_checkpoint, tmp_path, shapes, options, message
):
    with pytest.raises(FileError, match=message):
        adapters.merge(
            make_checkpoint("base"), make_adapter("a", shapes=shapes, **options), tmp_path / "out"
        )


def test_whole_numbers_take_no_update(make_adapter, tmp_path):
    (tmp_path / "base").mkdir()
    safetensors.save(
        {"q.weight": np.ones((6, 4), np.int8)}, tmp_path / "base" / "model.safetensors"
    )
    with pytest.raises(
        FileError, match=r"'q.weight' is stored as int8; only floats can be merged into"
    ):
        adapters.merge(tmp_path / "base", make_adapter("a", shapes={"q": (6, 4)}), tmp_path / "out")


def test_parameters_that_are_replaced_replace_and_must_fit(make_checkpoint, tmp_path):
    module = AdapterModule.of(A=np.ones((1, 4)), B=np.ones((6, 1)), alpha=1)
    raw = {"peft_type": "LORA", "modules_to_save": ["norm", "head"]}
    fits = {"model.norm.weight": in_memory(np.arange(4.0)), "head.weight": in_memory(np.eye(2))}
    adapters.save(Adapter({"model.layers.0.q_proj": module}, fits, raw), tmp_path / "fits")
    misfit = {"model.norm.weight": in_memory(np.ones(5))}
    adapters.save(Adapter({"model.layers.0.q_proj": module}, misfit, raw), tmp_path / "misfit")
    base = make_checkpoint("base")
    table = adapters.merge(base, tmp_path / "fits", tmp_path / "out").table
    after = open_model(tmp_path / "out")
    np.testing.assert_array_equal(after.read("model.norm.weight"), np.arange(4.0))
    np.testing.assert_array_equal(after.read("head.weight"), np.eye(2))
    assert after.info("model.norm.weight").dtype == "float32"
    assert "added: head.weight" in table.notes
    with pytest.raises(FileError, match=r"'model.norm.weight' has shape \(5,\), but \(4,\)"):
        adapters.merge(base, tmp_path / "misfit", tmp_path / "out2")
