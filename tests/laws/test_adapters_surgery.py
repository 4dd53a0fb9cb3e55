"""Resize, combine, extract, merge, inspect and diff on small files, against formed products."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import Adapter, AdapterModule
from lora_np.adapters.adapter import in_memory
from lora_np.adapters.peft_format import WEIGHTS
from lora_np.files import FileError
from lora_np.hub import safetensors
from lora_np.models import open_model

RNG = np.random.default_rng(0)


def directory(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def truncated(M, rank):
    U, s, Vh = np.linalg.svd(M, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vh[:rank]


# Resize


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_a_uniform_rank_is_the_truncated_svd_and_never_more_than_there_was(
    make_adapter, tmp_path, rank
):
    path = make_adapter("a", rank=4, dtype="float64")
    table = adapters.resize(path, tmp_path / "out", rank=rank).table
    before, after = adapters.load(path), adapters.load(tmp_path / "out")
    for name, row in zip(before, table.records, strict=True):
        assert after[name].rank == min(rank, before[name].rank, *before[name].shape)
        np.testing.assert_allclose(
            after.delta(name), truncated(before.delta(name), rank), atol=1e-12
        )
        error = np.linalg.norm(before.delta(name) - after.delta(name)) / np.linalg.norm(
            before.delta(name)
        )
        assert row["relative error"] == pytest.approx(error, abs=1e-7)
        assert after[name].scale == pytest.approx(before[name].scale, rel=1e-15)


def test_modules_that_keep_their_rank_are_copied_bit_by_bit(make_adapter, tmp_path):
    path = make_adapter("a", rank=2, dtype="bfloat16")
    adapters.resize(path, tmp_path / "out", rank=2)
    assert directory(tmp_path / "out") == directory(path)


@pytest.mark.parametrize("goal", [{"energy": 0.9}, {"tolerance": 0.3}], ids=str)
def test_each_module_has_the_smallest_rank_that_meets_the_goal(make_adapter, tmp_path, goal):
    path = make_adapter("a", rank=3, dtype="float64")
    adapters.resize(path, tmp_path / "out", **goal)
    before, after = adapters.load(path), adapters.load(tmp_path / "out")
    lost = 1 - goal["energy"] if "energy" in goal else goal["tolerance"] ** 2
    for name in before:
        errors = [
            np.linalg.norm(before.delta(name) - truncated(before.delta(name), r)) ** 2
            for r in range(4)
        ]
        smallest = next(r for r in range(1, 4) if errors[r] <= lost * errors[0])
        assert after[name].rank == smallest


def test_a_total_rank_has_the_least_error_of_all_ways_to_share_it_out(make_adapter, tmp_path):
    path = make_adapter("a", rank=3, dtype="float64")
    adapters.resize(path, tmp_path / "out", total_rank=4)
    before, after = adapters.load(path), adapters.load(tmp_path / "out")
    spectra = {name: np.linalg.svdvals(before.delta(name)) for name in before}
    best = sorted((s for spectrum in spectra.values() for s in spectrum), reverse=True)[:4]
    assert sum(module.rank for module in after.values()) == 4
    kept = sum(np.linalg.norm(after.delta(name)) ** 2 for name in after)
    assert kept == pytest.approx(np.square(best).sum())


@pytest.mark.parametrize("spare", [0, 1, 30, 1000])
def test_a_file_is_never_larger_than_its_budget(make_adapter, tmp_path, spare):
    path = make_adapter("a", rank=4)
    with pytest.raises(ValueError, match="budget must be at least") as caught:
        adapters.resize(path, tmp_path / "out", budget=1)
    smallest = int(str(caught.value).split()[5].rstrip(","))
    table = adapters.resize(path, tmp_path / "out", budget=smallest + spare).table
    assert (tmp_path / "out" / WEIGHTS).stat().st_size <= smallest + spare
    left_out = [row["module"] for row in table.records if row["rank"] == 0]
    assert set(adapters.load(tmp_path / "out")) == {row["module"] for row in table.records} - {
        *left_out
    }
    assert all(name in " ".join(table.notes) for name in left_out)  # nothing is dropped in silence
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(adapters.load(tmp_path / "out"))


def test_ranks_are_written_as_patterns(make_adapter, tmp_path):
    adapters.resize(make_adapter("a", rank=4, use_rslora=True), tmp_path / "out", total_rank=7)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["rank_pattern"]
    assert config["alpha_pattern"]


def test_dora_and_biases_are_kept_and_never_left_without_a_direction(tmp_path):
    modules = {
        name: AdapterModule.of(
            A=scale * RNG.standard_normal((2, 4)), B=RNG.standard_normal((5, 2)), alpha=2,
            magnitude=np.ones(5), bias=np.arange(5.0),
        )
        for name, scale in (("strong", 1.0), ("weak", 1e-6))
    }  # fmt: skip
    raw = {
        "peft_type": "LORA",
        "use_dora": True,
        "lora_bias": True,
        "target_modules": list(modules),
    }
    adapters.save(Adapter(modules, raw=raw), tmp_path / "a")
    adapters.resize(tmp_path / "a", tmp_path / "out", total_rank=2)
    after = adapters.load(tmp_path / "out")
    assert [module.rank for module in after.values()] == [1, 1]
    np.testing.assert_array_equal(after["weak"].bias, np.arange(5.0))
    np.testing.assert_array_equal(after["weak"].magnitude, np.ones(5))


def test_an_adapter_that_does_nothing_or_is_not_finite_is_refused(tmp_path):
    for name, fill in (("dead", 0.0), ("nan", np.nan)):
        adapters.save(
            Adapter({"q": AdapterModule.of(A=np.ones((2, 3)), B=np.full((4, 2), fill), alpha=1)}),
            tmp_path / name,
        )
    with pytest.raises(FileError, match="every module is zero"):
        adapters.resize(tmp_path / "dead", tmp_path / "out", total_rank=1)
    with pytest.raises(FileError, match="q: B must be finite, got nan"):
        adapters.resize(tmp_path / "nan", tmp_path / "out", rank=1)
    assert sorted(os.listdir(tmp_path)) == ["dead", "nan"]


# Combine


@pytest.mark.parametrize("method", ["cat", "svd"])
def test_the_sum_is_that_of_the_updates(make_adapter, tmp_path, method):
    paths = [
        make_adapter("a", rank=2, dtype="float64"),
        make_adapter("b", rank=1, seed=5, use_rslora=True, dtype="float64"),
    ]
    adapters.combine(paths, tmp_path / "out", weights=[0.5, -2.0], method=method)
    first, second, out = (adapters.load(path) for path in (*paths, tmp_path / "out"))
    for name in first:
        total = 0.5 * first.delta(name) - 2 * second.delta(name)
        expected = total if method == "cat" else truncated(total, 2)
        np.testing.assert_allclose(out.delta(name), expected, atol=1e-12)
        assert out[name].rank == (3 if method == "cat" else 2)


def test_linear_says_how_far_it_is_from_the_sum(make_adapter, tmp_path):
    paths = [make_adapter("a", dtype="float64"), make_adapter("b", seed=5, dtype="float64")]
    table = adapters.combine(paths, tmp_path / "out", method="linear").table
    first, second, out = (adapters.load(path) for path in (*paths, tmp_path / "out"))
    assert "adds factors, not updates" in table.notes[0]
    for name, row in zip(out, table.records, strict=True):
        total = first.delta(name) + second.delta(name)
        off = np.linalg.norm(out.delta(name) - total) / np.linalg.norm(total)
        assert row["relative difference"] == pytest.approx(off)
        assert off > 0.1


def test_an_adapter_may_be_added_to_itself_and_taken_away(make_adapter, tmp_path):
    path = make_adapter("a", dtype="float64")
    adapters.combine([path, path], tmp_path / "out", weights=[1, -1], method="cat")
    for module in adapters.load(tmp_path / "out").values():
        np.testing.assert_allclose(module.delta(), 0, atol=1e-14)


def test_biases_of_b_are_added_up(tmp_path):
    for name, bias in (("a", [1.0, 2.0]), ("b", [10.0, 0.0])):
        module = AdapterModule.of(
            A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=2, bias=np.array(bias)
        )
        adapters.save(
            Adapter({"q": module}, raw={"peft_type": "LORA", "lora_bias": True}), tmp_path / name
        )
    adapters.combine(
        [tmp_path / "a", tmp_path / "b"], tmp_path / "out", weights=[1, 3], method="cat"
    )
    module = adapters.load(tmp_path / "out")["q"]
    np.testing.assert_allclose(module.scale * module.bias, [62.0, 4.0])


COMBINATIONS = {
    "no adapter": ([], {}, ValueError, "each adapter needs one weight, got 0 for 0"),
    "a weight too few": (["a", "b"], {"weights": [1.0]}, ValueError, "got 1 for 2 adapters"),
    "an unknown method": (
        ["a"],
        {"method": "tie"},
        ValueError,
        "method must be one of 'sum', .*got 'tie'",
    ),
    "a weight that is not finite": (
        ["a"],
        {"weights": [float("nan")]},
        ValueError,
        "the weight of .*a must be finite, got nan",
    ),
    "an infinite weight": (
        ["a"],
        {"weights": [np.inf]},
        ValueError,
        "the weight of .*a must be finite, got inf",
    ),
    "a weight beyond floats": (
        ["a"],
        {"weights": [10**400]},
        ValueError,
        "must be finite, got 1000",
    ),
    "a sum that overflows": (
        ["a", "a"],
        {"weights": [1e300, 1e300]},
        FileError,
        "model.layers.0.q_proj: the result is not finite",
    ),
    "factors whose sum overflows": (
        ["a"],
        {"weights": [1e300], "method": "linear"},
        FileError,
        "model.layers.0.q_proj: the result is not finite",
    ),
    "different ranks": (
        ["a", "b"],
        {"method": "linear"},
        FileError,
        r"q_proj: ranks are \[1, 2\]; a method that adds factors needs equal ones, unlike 'sum'",
    ),
    "different shapes": (
        ["a", "c"],
        {},
        FileError,
        r"'model.layers.0.q_proj' has shape \(5, 4\), not \(6, 4\)",
    ),
    "different storage": (["a", "d"], {}, FileError, "fan_in_fan_out is not the same"),
}


@pytest.mark.parametrize(
    ("names", "options", "error", "message"), COMBINATIONS.values(), ids=COMBINATIONS
)
def test_what_can_not_be_combined_is_refused(
    make_adapter, tmp_path, names, options, error, message
):
    make_adapter("a", rank=2)
    make_adapter("b", rank=1)
    make_adapter("c", shapes={"model.layers.0.q_proj": (5, 4)})
    make_adapter("d", fan_in_fan_out=True)
    with pytest.raises(error, match=message):
        adapters.combine([tmp_path / name for name in names], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("adapters_", ["a", Path("a"), {"a": 0.5}, None], ids=repr)
def test_what_is_no_sequence_of_paths_is_refused(make_adapter, tmp_path, monkeypatch, adapters_):
    make_adapter("a")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=r"adapters must be a sequence of paths, .*got"):
        adapters.combine(adapters_, "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("dtype", "size"), [("float32", 3e38), ("float64", 1e300)])
def test_an_overflow_on_the_way_is_named_without_a_warning(tmp_path, dtype, size):
    if dtype == "float32" and sys.platform == "emscripten":
        pytest.skip("norms are float64 there, which does not overflow")
    huge = AdapterModule.of(A=np.full((2, 3), size, dtype), B=np.full((4, 2), size, dtype), alpha=1)
    adapters.save(Adapter({"q": huge}), tmp_path / "huge")
    half = AdapterModule.of(
        A=np.full((2, 3), size / 2, dtype), B=np.full((4, 2), size, dtype), alpha=1
    )
    adapters.save(Adapter({"q": half}), tmp_path / "half")
    message = "q.*: the result is not finite"
    for method in ("cat", "linear", "svd"):
        with pytest.raises(FileError, match=message):
            adapters.combine([tmp_path / "huge"], tmp_path / "out", method=method)
    with pytest.raises(FileError, match=message):
        adapters.resize(tmp_path / "huge", tmp_path / "out", rank=1)
    with pytest.raises(FileError, match=message):
        adapters.diff(tmp_path / "huge", tmp_path / "half")
    assert [row.status for row in adapters.inspect(tmp_path / "huge").rows] == ["NOT FINITE"]
    assert sorted(os.listdir(tmp_path)) == ["half", "huge"]


def test_large_numbers_that_do_not_overflow_are_combined(tmp_path):
    large = AdapterModule.of(
        A=np.eye(2, 3, dtype="f4") * 1e10, B=np.eye(4, 2, dtype="f4") * 1e10, alpha=2
    )
    adapters.save(Adapter({"q": large}), tmp_path / "large")
    for method in ("cat", "linear", "svd"):
        table = adapters.combine([tmp_path / "large"], tmp_path / method, method=method).table
        assert table.records[0]["relative difference"] < 1e-6
        assert adapters.diff(tmp_path / "large", tmp_path / method).same


def test_dora_and_doubly_replaced_parameters_are_not_combined(tmp_path):
    dora = AdapterModule.of(A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=2, magnitude=np.ones(2))
    adapters.save(
        Adapter({"q": dora}, raw={"peft_type": "LORA", "use_dora": True}), tmp_path / "dora"
    )
    with pytest.raises(FileError, match=r"adding DoRA's magnitudes needs the base weights"):
        adapters.combine([tmp_path / "dora"] * 2, tmp_path / "out")
    plain = AdapterModule.of(A=np.ones((1, 3)), B=np.ones((2, 1)), alpha=2)
    for i in (1, 2):
        full = {"head.weight": adapters.adapter.in_memory(np.full((1, 3), float(i)))}
        raw = {"peft_type": "LORA", "modules_to_save": ["head"]}
        adapters.save(Adapter({"q": plain}, full, raw), tmp_path / f"head{i}")
    with pytest.raises(FileError, match=r"replaces 'head.weight', as an earlier adapter does"):
        adapters.combine([tmp_path / "head1", tmp_path / "head2"], tmp_path / "out")
    adapters.combine([tmp_path / "head1"] * 2, tmp_path / "same")  # equal copies contradict nothing
    assert list(adapters.load(tmp_path / "same").full) == ["head.weight"]


# Merge


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


# Extract


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


# Workers


def test_any_number_of_workers_writes_identical_bytes(make_adapter, make_checkpoint, tmp_path):
    base, tuned, path = (
        make_checkpoint("base"),
        make_checkpoint("tuned", seed=3),
        make_adapter("a", rank=4),
    )
    for jobs in (1, 2, 3):
        adapters.extract(base, tuned, tmp_path / f"extract{jobs}", energy=0.8, jobs=jobs)
        adapters.resize(path, tmp_path / f"resize{jobs}", total_rank=5, jobs=jobs)
        adapters.combine([path, path], tmp_path / f"combine{jobs}", method="svd", jobs=jobs)
        adapters.merge(base, path, tmp_path / f"merge{jobs}", jobs=jobs)
    for command in ("extract", "resize", "combine", "merge"):
        first = directory(tmp_path / f"{command}1")
        assert directory(tmp_path / f"{command}2") == first
        assert directory(tmp_path / f"{command}3") == first


@pytest.fixture
def commands(make_adapter, make_checkpoint, tmp_path):
    """Runs every heavy command into a folder, and returns the bytes that it finds there."""
    base, tuned, path = (
        make_checkpoint("base"),
        make_checkpoint("tuned", seed=3),
        make_adapter("a", rank=4),
    )

    def run(name):
        place = tmp_path / name
        place.mkdir()
        adapters.extract(base, tuned, place / "extract", energy=0.8, jobs=2)
        adapters.resize(path, place / "resize", total_rank=5, jobs=2)
        adapters.combine([path, path], place / "combine", jobs=2)
        adapters.merge(base, path, place / "merge", jobs=2)
        adapters.inspect(path, base=base, jobs=2)
        return {out.name: directory(out) for out in place.iterdir()}

    return run


def test_worker_processes_write_identical_bytes_too(commands):
    joblib = pytest.importorskip("joblib")
    expected = commands("threads")
    with joblib.parallel_config(backend="loky"):
        assert commands("processes") == expected


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_writes_identical_bytes_too(commands, tmp_path):
    distributed = pytest.importorskip("dask.distributed")
    import joblib

    expected = commands("threads")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert len(client.scheduler_info()["workers"]) == 2
        with joblib.parallel_config("dask"):
            assert commands("dask cluster") == expected


def test_a_number_of_workers_below_one_is_refused(adapter):
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        adapters.inspect(adapter, jobs=0)


# Inspect


def test_an_inspection_shows_each_module_as_its_formed_product_would(make_adapter):
    path = make_adapter("a", rank=3, dtype="float64")
    found, adapter = adapters.inspect(path), adapters.load(path)
    total = sum(np.linalg.norm(adapter.delta(name)) ** 2 for name in adapter)
    for row in found.table.records:
        s = np.linalg.svdvals(adapter.delta(row["module"]))[: row["rank"]]
        np.testing.assert_allclose(found.spectra[row["module"]], s)
        share = np.square(s) / np.square(s).sum()
        assert row["norm"] == pytest.approx(np.linalg.norm(s))
        assert row["share"] == pytest.approx(np.square(s).sum() / total)
        assert row["stable rank"] == pytest.approx(np.square(s / s[0]).sum())
        assert row["rank for 99 %"] == 1 + int(np.argmax(share.cumsum() >= 0.99))
        assert row["excess rank"] == row["rank"] - row["rank for 99 %"]


def test_dead_modules_and_nan_are_called_out(tmp_path):
    A = np.ones((2, 3))
    modules = {
        "fine": AdapterModule.of(A=A, B=np.ones((4, 2)), alpha=1),
        "dead": AdapterModule.of(A=A, B=np.zeros((4, 2)), alpha=1),
        "nan": AdapterModule.of(A=A, B=np.full((4, 2), np.nan), alpha=1),
    }
    adapters.save(Adapter(modules), tmp_path / "a")
    table = adapters.inspect(tmp_path / "a").table
    assert {row["module"]: row["status"] for row in table.records} == {
        "fine": "ok",
        "dead": "DEAD",
        "nan": "NOT FINITE",
    }
    assert "DEAD: dead: lora_B.weight is zero, as without training" in table.notes
    assert "NOT FINITE: nan: lora_B.weight holds NaN" in table.notes
    assert json.loads(table.to_json())


def test_with_a_base_updates_are_held_against_it(make_checkpoint, tmp_path):
    base = make_checkpoint("base", dtype="float64")
    W0 = open_model(base).read("model.layers.0.q_proj.weight")
    U, s, Vh = np.linalg.svd(W0, full_matrices=False)
    module = AdapterModule.of(
        A=Vh[3:], B=2 * s[3] * U[:, 3:], alpha=1
    )  # three times as loud in W0's weakest direction
    adapters.save(Adapter({"model.layers.0.q_proj": module}), tmp_path / "a")
    row = adapters.inspect(tmp_path / "a", base=base).table.records[0]
    assert row["amplification"] == pytest.approx(2.0)
    assert row["relative"] == pytest.approx(2 * s[3] / np.linalg.norm(W0))
    assert row["intruders"] == 0
    new = AdapterModule.of(
        A=np.array([[1.0, -1.0, 1.0, -1.0]]), B=50 * (U @ np.ones((4, 1))), alpha=1
    )
    adapters.save(Adapter({"model.layers.0.q_proj": new}), tmp_path / "b")
    assert adapters.inspect(tmp_path / "b", base=base).table.records[0]["intruders"] >= 1


# Diff


def test_the_same_map_from_other_factors_is_the_same(make_adapter, tmp_path):
    adapter = adapters.load(make_adapter("a", rank=2, dtype="float64"))
    mixed = {}
    for name, module in adapter.items():
        M = RNG.standard_normal((2, 2))
        B = np.hstack([module.B @ M, np.zeros((module.shape[0], 1))])
        A = np.vstack([np.linalg.solve(M, module.A), RNG.standard_normal((1, module.shape[1]))])
        mixed[name] = AdapterModule.of(A=A, B=B, alpha=module.scale * 3)
    adapters.save(Adapter(mixed), tmp_path / "b")
    found = adapters.diff(tmp_path / "a", tmp_path / "b")
    assert found.same
    assert all(row["cosine"] == pytest.approx(1) for row in found.table.records)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_the_very_same_factors_differ_by_nothing(make_adapter, tmp_path, dtype):
    path = make_adapter("a", dtype=dtype, rank=3)
    adapters.save(adapters.load(path), tmp_path / "copy")
    found = adapters.diff(path, tmp_path / "copy", tolerance=0)
    assert found.same
    assert all((row["relative difference"], row["cosine"]) == (0, 1) for row in found.table.records)


def test_differences_are_those_of_the_formed_products(make_adapter, tmp_path):
    paths = make_adapter("a", dtype="float64"), make_adapter("b", seed=4, alpha=3, dtype="float64")
    one, two = (adapters.load(path) for path in paths)
    found = adapters.diff(*paths)
    assert not found.same
    for row in found.table.records:
        x, y = one.delta(row["module"]), two.delta(row["module"])
        norms = np.linalg.norm(x), np.linalg.norm(y)
        assert row["relative difference"] == pytest.approx(np.linalg.norm(x - y) / max(norms))
        assert row["cosine"] == pytest.approx(np.vdot(x, y) / np.prod(norms))


def test_what_only_one_adapter_has_differs_altogether(make_adapter):
    one = make_adapter("a")
    two = make_adapter("b", shapes={"model.layers.0.q_proj": (6, 4)})
    found = adapters.diff(one, two)
    assert [row["relative difference"] for row in found.table.records][1:] == [1.0, 1.0]
    assert not found.same


def test_dead_modules_are_the_same_as_each_other_only(tmp_path):
    A = np.ones((2, 3))
    for name, B in (("dead", np.zeros((4, 2))), ("alive", np.ones((4, 2)))):
        adapters.save(Adapter({"q": AdapterModule.of(A=A, B=B, alpha=1)}), tmp_path / name)
    assert adapters.diff(tmp_path / "dead", tmp_path / "dead").same
    assert not adapters.diff(tmp_path / "dead", tmp_path / "alive").same
