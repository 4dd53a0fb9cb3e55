"""Adapters that PEFT began with PiSSA or OLoRA: factors of another base, brought back to the
original.
"""

import json

import numpy as np
import pytest

import lora_np as lnp
from lora_np import adapters
from lora_np.files import FileError
from lora_np.hub import safetensors
from tests.adapters.conftest import SHAPES, write_adapter, write_checkpoint
from tests.adapters.test_peft_format import change_config

STARTS = ["pissa", "olora"]


def taken(W, start, rank, scale):
    """What PEFT's initialisation takes out of a weight, from its definition."""
    if start == "pissa":
        U, s, Vh = np.linalg.svd(W, full_matrices=False)
        return (U[:, :rank] * s[:rank]) @ Vh[:rank]
    Q, R = np.linalg.qr(W)
    return scale * Q[:, :rank] @ R[:rank]


@pytest.fixture(params=[(start, rslora) for start in STARTS for rslora in (False, True)], ids=str)
def case(request, tmp_path):
    start, rslora = request.param
    base = write_checkpoint(tmp_path / "base", dtype="float64")
    path = write_adapter(tmp_path / "adapter", dtype="float64", use_rslora=rslora)
    change_config(path, init_lora_weights=start)
    read = adapters.load(path)
    stored = safetensors.open(base / "model-00001-of-00002.safetensors").read
    others = safetensors.open(base / "model-00002-of-00002.safetensors")
    wanted = {}
    for name, module in read.items():
        key = f"{name}.weight"
        W = others.read(key) if key in others.tensors else stored(key)
        wanted[name] = W - taken(W, start, module.rank, module.scale) + module.delta()
    return tmp_path, wanted


def merged(folder, adapter):
    adapters.merge(folder / "base", adapter, folder / "merged", force=True)
    files = [safetensors.open(path) for path in (folder / "merged").glob("*.safetensors")]
    return {name: file.read(name) for file in files for name in file.tensors}


def test_merging_takes_their_start_out_again(case):
    folder, wanted = case
    found = merged(folder, folder / "adapter")
    for name, W in wanted.items():
        np.testing.assert_allclose(found[f"{name}.weight"], W, atol=1e-12)


def test_rebased_they_are_ordinary_and_of_twice_the_rank(case):
    folder, wanted = case
    ordinary = adapters.to_lora(folder / "adapter", base=folder / "base")
    adapters.save(ordinary, folder / "ordinary")
    back = adapters.load(folder / "ordinary")
    assert {module.rank for module in back.values()} == {4}
    assert back.init is None
    found = merged(folder, back)
    for name, W in wanted.items():
        np.testing.assert_allclose(found[f"{name}.weight"], W, atol=1e-12)
    assert adapters.to_lora(back) is back
    result = adapters.resize(back, folder / "small", tolerance=1e-9)
    assert {row.rank for row in result.rows} <= {3, 4}


def test_they_are_saved_as_they_are(case):
    folder, _ = case
    adapters.save(adapters.load(folder / "adapter"), folder / "again")
    assert adapters.diff(folder / "adapter", folder / "again").same
    config = json.loads((folder / "again" / "adapter_config.json").read_text())
    assert config["init_lora_weights"] in STARTS


def test_they_are_attached_to_what_is_left_of_the_base(case):
    folder, wanted = case
    name = "model.layers.0.q_proj"
    read = adapters.load(folder / "adapter")
    stored = [safetensors.open(path) for path in (folder / "base").glob("*.safetensors")]
    W = next(file.read(f"{name}.weight") for file in stored if f"{name}.weight" in file.tensors)
    alone = adapters.Adapter({"linear": read[name]}, raw={**read.raw, "target_modules": ["linear"]})
    model = adapters.attach(lnp.Linear(W), alone)
    np.testing.assert_allclose(lnp.merge(model).W, wanted[name], atol=1e-12)
    np.testing.assert_allclose(
        lnp.merge(lnp.lora.rebase(model, lnp.Linear(W))).W, wanted[name], atol=1e-12
    )


@pytest.mark.parametrize("start", [*STARTS, "pissa_niter_4", "corda", "loftq"])
def test_without_their_base_they_are_no_update_of_it(adapter, checkpoint, tmp_path, start):
    change_config(adapter, init_lora_weights=start)
    assert str(adapters.inspect(adapter).table)
    remedy = r"adapters\.to_lora" if start in STARTS else "path_initial_model_for_weight_conversion"
    for act in (
        lambda: adapters.resize(adapter, tmp_path / "out", rank=1),
        lambda: adapters.combine([adapter, adapter], tmp_path / "out"),
    ):
        with pytest.raises(FileError, match=f"init_lora_weights = '{start}' takes .*{remedy}"):
            act()
    if start not in STARTS:
        with pytest.raises(FileError, match=f"init_lora_weights = '{start}' takes .*{remedy}"):
            adapters.merge(checkpoint, adapter, tmp_path / "out")
        with pytest.raises(FileError, match=f"init_lora_weights = '{start}' takes .*{remedy}"):
            adapters.to_lora(adapter, base=checkpoint)
    assert set(SHAPES) == set(adapters.load(adapter))


def test_beside_the_base_they_are_measured_as_what_they_change(case):
    folder, wanted = case
    stored = [safetensors.open(path) for path in (folder / "base").glob("*.safetensors")]
    for row in adapters.inspect(folder / "adapter", base=folder / "base").rows:
        key = f"{row.name}.weight"
        W = next(file.read(key) for file in stored if key in file.tensors)
        change = np.linalg.norm(wanted[row.name] - W) / np.linalg.norm(W)
        assert row.relative == pytest.approx(change, rel=1e-5)
