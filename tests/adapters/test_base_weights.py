"""What a merge says it lost is what it lost, in every dtype, by tensor and in all."""

import json
import re

import numpy as np
import pytest

from lora_np import adapters
from lora_np.files import FileError
from lora_np.hub import ALL_FLOATS, TensorInfo, open_directory, rounded, safetensors
from lora_np.models import open_model
from tests.adapters.conftest import write_adapter, write_checkpoint

RANDOM = {"rounding": "random", "rng": 3}
WIDE = {f"model.layers.{i}.q_proj": (96, 64) for i in range(3)}


def stated(merged):
    """The share kept and the share of unmoved entries that the notes say."""
    note = next(note for note in merged.notes if note.startswith("share of the update kept"))
    kept, unmoved = re.match(
        r"share of the update kept: (\S+); (\S+)% of the entries", note
    ).groups()
    return float(kept), float(unmoved) / 100


def by_hand(base, adapter, out):
    """Both shares of each tensor that the adapter changes, and of all, in double precision."""
    before, after = open_model(base), open_model(out)
    rows, sums = {}, np.zeros(4)
    for name in adapter:
        W0, Q = (each.read(f"{name}.weight").astype(float) for each in (before, after))
        dW = adapter.delta(name).astype(float)
        parts = np.array([np.vdot(Q - W0, dW), np.vdot(dW, dW), np.sum(Q == W0), W0.size])
        rows[f"{name}.weight"] = parts[0] / parts[1], parts[2] / parts[3]
        sums += parts
    return rows, (sums[0] / sums[1], sums[2] / sums[3])


@pytest.mark.parametrize("settings", [{}, RANDOM], ids=["nearest", "random"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float8_e4m3"])
@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_shares_are_those_of_the_files(tmp_path, dtype, strength, settings):
    base = write_checkpoint(tmp_path / "base", dtype="bfloat16")
    adapter = scaled(adapters.load(write_adapter(tmp_path / "a")), strength)
    merged = adapters.merge(base, adapter, tmp_path / "out", dtype=dtype, **settings)
    rows, every = by_hand(base, adapter, tmp_path / "out")
    assert rows.keys() == {row.name for row in merged.rows}
    for row in merged.rows:
        assert (row.share_kept, row.unmoved) == pytest.approx(rows[row.name], abs=1e-3)
        assert row.dtype == dtype
    assert stated(merged) == pytest.approx(every, abs=0.006)
    advised = any("rounding loses much of the update" in note for note in merged.notes)
    assert advised == (every[0] < 0.9)


def scaled(adapter, strength):
    modules = {
        name: adapters.AdapterModule.of(A=one.A, B=strength * one.B, alpha=one.alpha)
        for name, one in adapter.items()
    }
    return adapters.Adapter(modules)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_new_dtype_is_that_of_the_whole_model_and_its_config(tmp_path, dtype):
    base = write_checkpoint(tmp_path / "base", dtype="float32")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    adapter = adapters.load(write_adapter(tmp_path / "a"))
    adapters.merge(base, adapter, tmp_path / "out", dtype=dtype, any_base=True)
    before, after = open_directory(base), open_directory(tmp_path / "out")
    assert after.config["dtype"] == dtype
    assert after.places.keys() == before.places.keys()
    for name in before.places:
        assert after.info(name).dtype == dtype
        exact = before.read(name).astype(float)
        if module := adapter.get(name.removesuffix(".weight")):
            exact += module.scale * module.B.astype(float) @ module.A
        np.testing.assert_array_equal(after.read(name), rounded(exact, dtype))


def test_eight_bits_are_for_matrices_and_can_be_merged_into_again(tmp_path):
    base = write_checkpoint(tmp_path / "base")
    adapter = adapters.load(write_adapter(tmp_path / "a"))
    adapters.merge(base, adapter, tmp_path / "once", dtype="float8_e4m3")
    once = open_directory(tmp_path / "once")
    for name in once.places:
        eight = once.info(name).dtype == "float8_e4m3"
        assert eight == (len(once.info(name).shape) > 1), name
    merged = adapters.merge(tmp_path / "once", adapter, tmp_path / "twice", any_base=True)
    rows, every = by_hand(tmp_path / "once", adapter, tmp_path / "twice")
    assert {row.dtype for row in merged.rows} == {"float8_e4m3"}
    assert stated(merged) == pytest.approx(every, abs=0.006)
    assert rows


def test_random_rounding_follows_from_the_seed_alone(tmp_path):
    base = write_checkpoint(tmp_path / "base", dtype="bfloat16")
    weak = scaled(adapters.load(write_adapter(tmp_path / "a")), 0.01)
    outs = {
        name: adapters.merge(base, weak, tmp_path / name, rounding="random", **settings).path
        for name, settings in {
            "a1": {"rng": 1}, "a2": {"rng": 1, "jobs": 2}, "b": {"rng": 2},
        }.items()
    }  # fmt: skip
    files = {name: open_directory(path) for name, path in outs.items()}
    same = [np.array_equal(files["a1"].read(x), files["a2"].read(x)) for x in files["a1"].places]
    other = [np.array_equal(files["a1"].read(x), files["b"].read(x)) for x in files["a1"].places]
    assert all(same)
    assert not all(other)


def test_random_rounding_keeps_what_nearest_rounding_takes_back(tmp_path):
    base = write_checkpoint(tmp_path / "base", dtype="bfloat16", shapes=WIDE)
    weak = scaled(adapters.load(write_adapter(tmp_path / "a", shapes=WIDE)), 2e-4)
    nearest = adapters.merge(base, weak, tmp_path / "nearest")
    lucky = adapters.merge(base, weak, tmp_path / "random", **RANDOM)
    assert stated(nearest)[0] < 0.6
    assert stated(lucky)[0] == pytest.approx(1, abs=0.1)


def test_a_base_in_eight_bits_with_scales_is_refused_by_name(tmp_path):
    base = write_checkpoint(tmp_path / "base", shards=1)
    path, name = base / "model.safetensors", "model.layers.0.q_proj.weight"
    file = safetensors.open(path)
    infos = {**file.tensors, name: TensorInfo("float8_e4m3", file.info(name).shape)}
    infos[f"{name}_scale_inv"] = TensorInfo("float32", (1, 1))
    arrays = {key: file.read(key) for key in file.tensors} | {f"{name}_scale_inv": np.ones((1, 1))}
    safetensors.write(infos, arrays.__getitem__, path)
    with pytest.raises(
        FileError, match=r"float8_e4m3 times '.*_scale_inv', which is not supported"
    ):
        adapters.merge(base, write_adapter(tmp_path / "a"), tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "bf16"}, "dtype must be 'bfloat16', not 'bf16'"),
        ({"dtype": "Q8_0"}, f"dtype must be one of {', '.join(ALL_FLOATS)}, got 'Q8_0'"),
        ({"rounding": "up"}, "rounding must be one of 'nearest', 'random', got 'up'"),
    ],
)
def test_options_that_are_not_known_are_refused(tmp_path, settings, message):
    base = write_checkpoint(tmp_path / "base")
    with pytest.raises(ValueError, match=re.escape(message)):
        adapters.merge(base, write_adapter(tmp_path / "a"), tmp_path / "out", **settings)
