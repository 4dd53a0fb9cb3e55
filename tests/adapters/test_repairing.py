"""Adapters whose names, targets or patterns are wrong, written anew: the same updates, found by PEFT."""

import json
import re

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters.adapter import in_memory
from lora_np.adapters.peft_format import WEIGHTS
from lora_np.cli import run
from lora_np.files import FileError
from lora_np.hub import safetensors
from tests.adapters.test_checking import TEXT, VISION
from tests.adapters.test_formats import LLAMA, drawn
from tests.models.test_dialects import wrap


def saved(folder, config=LLAMA, **settings):
    """An adapter in a folder, and its updates by name."""
    adapter = drawn(config, roles=["linear"], scales=(1.0, 2.5), ranks=(2, 3), **settings)
    layers = {name: module for name, module in adapter.items() if ".visual." not in name}
    adapter = adapters.Adapter(layers, raw={**adapter.raw, "target_modules": sorted(layers)})
    adapters.save(adapter, folder)
    return {name: module.delta() for name, module in adapters.load(folder).items()}


def change(folder, rename=lambda key: key, **settings):
    file = safetensors.open(folder / WEIGHTS)
    tensors = {rename(key): file.read(key) for key in file.tensors}
    safetensors.save(tensors, folder / WEIGHTS)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def assert_repaired(folder, out, deltas, base, renamed=lambda name: name):
    found = adapters.repair(folder, out, base=base)
    after = adapters.load(out)
    assert after.keys() == {renamed(name) for name in deltas}
    for name, delta in deltas.items():
        np.testing.assert_array_equal(after.delta(renamed(name)), delta)
    for row in found.rows:
        assert row.norm == row.norm_before == pytest.approx(np.linalg.norm(after.delta(row.name)))
    assert {row.status for row in adapters.check(out, runtime="peft", base=base).rows} == {"fine"}
    return found


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod.", "module.", "_fsdp_wrapped_module.", "base_model.model.", "missing", "default"]
)  # fmt: skip
def test_wrappers_are_removed(tmp_path, wrapper):
    deltas = saved(tmp_path / "a")
    change(tmp_path / "a", lambda key: wrap(key, wrapper))
    found = assert_repaired(tmp_path / "a", tmp_path / "new", deltas, LLAMA)
    assert f"names rewritten: {len(deltas)}" in found.notes[1]
    for file in safetensors.open(tmp_path / "new" / WEIGHTS).tensors:
        assert re.fullmatch(r"base_model\.model\.[\w.]+\.lora_[AB]\.weight", file)
        assert not re.search(r"_orig_mod|module\.|default|_wrapped|model\.base_model", file)


def around(name):
    return name.replace("model.", "model.language_model.", 1) if ".layers." in name else name


def inside(name):
    return name.replace("model.language_model.", "model.", 1)


@pytest.mark.parametrize("wrapper", ["", "_orig_mod."])
@pytest.mark.parametrize(
    ("adapted", "base", "renamed"),
    [(TEXT, VISION, around), (VISION, TEXT, inside)],
    ids=["to vision", "to text"],
)
def test_names_get_the_bases_prefix(tmp_path, adapted, base, renamed, wrapper):
    deltas = saved(tmp_path / "a", adapted, rslora=True)
    change(tmp_path / "a", lambda key: wrapper + key)
    assert_repaired(tmp_path / "a", tmp_path / "new", deltas, base, renamed)


def test_an_adapter_of_a_model_without_its_head(tmp_path):
    deltas = saved(tmp_path / "a")
    del deltas["lm_head"]
    ends = sorted({name.rpartition(".")[2] for name in deltas})
    adapter = adapters.load(tmp_path / "a")
    bare = {name.removeprefix("model."): adapter[name] for name in deltas}
    adapters.save(
        adapters.Adapter(bare, raw={"peft_type": "LORA", "target_modules": ends}), tmp_path / "b"
    )
    assert_repaired(tmp_path / "b", tmp_path / "new", deltas, LLAMA)


def test_saved_modules_and_token_rows_are_renamed_too(tmp_path):
    adapter = drawn(TEXT, roles=["linear"], scales=(1.0,), ranks=(2,))
    layers = {name: module for name, module in adapter.items() if name != "lm_head"}
    full = {"lm_head.weight": in_memory(np.ones((TEXT["vocab_size"], 16))),
            "model.norm.weight": in_memory(np.ones(16))}  # fmt: skip
    raw = {
        "peft_type": "LORA",
        "target_modules": sorted(layers),
        "modules_to_save": ["lm_head", "model.norm"],
    }
    adapters.save(adapters.Adapter(layers, full, raw), tmp_path / "a")
    adapters.repair(tmp_path / "a", tmp_path / "new", base=VISION)
    after = adapters.load(tmp_path / "new")
    assert [*after.full] == ["lm_head.weight", "model.language_model.norm.weight"]


@pytest.mark.parametrize("what", ["mlp", "0", "input_layernorm"])
def test_a_target_that_matches_a_container_is_replaced(tmp_path, what):
    deltas = saved(tmp_path / "a")
    ends = sorted({name.rpartition(".")[2] for name in deltas})
    change(tmp_path / "a", target_modules=[*ends, what])
    found = assert_repaired(tmp_path / "a", tmp_path / "new", deltas, LLAMA)
    assert "target_modules are whole paths now, because they matched" in found.notes[-1]


@pytest.mark.parametrize("targets", [["q_prj"], "encoder.*", ["q_proj"]])
def test_targets_that_miss_a_module_are_replaced(tmp_path, targets):
    deltas = saved(tmp_path / "a")
    change(tmp_path / "a", target_modules=targets)
    with pytest.raises(FileError, match="lora-np repair"):
        adapters.load(tmp_path / "a")
    found = assert_repaired(tmp_path / "a", tmp_path / "new", deltas, LLAMA)
    assert "because they missed" in found.notes[-1]


@pytest.mark.parametrize(
    "key", ["^q_proj", "base_model.model.model.layers.0.self_attn.q_proj", "encoder"]
)
def test_a_pattern_that_matches_nothing_is_left_out(tmp_path, key):
    deltas = saved(tmp_path / "a")
    alphas = json.loads((tmp_path / "a" / "adapter_config.json").read_text())["alpha_pattern"]
    change(tmp_path / "a", alpha_pattern={key: 100, **alphas})
    found = assert_repaired(tmp_path / "a", tmp_path / "new", deltas, LLAMA)
    assert f"removed from alpha_pattern, since no module matches: {key}" in found.notes
    assert adapters.load(tmp_path / "new").raw["alpha_pattern"] == alphas


def test_what_is_right_stays_as_it_is(tmp_path):
    deltas = saved(tmp_path / "a")
    found = assert_repaired(tmp_path / "a", tmp_path / "new", deltas, LLAMA)
    assert found.notes[-1] == "nothing had to be changed"
    before, after = (
        json.loads((tmp_path / x / "adapter_config.json").read_text()) for x in ("a", "new")
    )
    assert before == after


@pytest.mark.parametrize("form", ["mlx", "gguf"])
def test_other_formats(tmp_path, form):
    deltas = saved(tmp_path / "a")
    path = tmp_path / f"a.{form}"
    adapters.convert(tmp_path / "a", path, to=form, base=LLAMA)
    if form == "mlx":
        file = safetensors.open(path / "adapters.safetensors")
        tensors = {f"module.{key}": file.read(key) for key in file.tensors}
        safetensors.save(tensors, path / "adapters.safetensors")
    out = tmp_path / f"new.{form}"
    adapters.repair(path, out, base=LLAMA)
    after = adapters.load(out, base=LLAMA)
    assert {
        row.status
        for row in adapters.check(
            out, runtime="llama.cpp" if form == "gguf" else "mlx", base=LLAMA
        ).rows
    } == {"fine"}
    for name, delta in deltas.items():
        np.testing.assert_allclose(after.delta(name), delta, rtol=1e-5, atol=1e-6)


def test_what_is_not_certain_is_refused(tmp_path):
    saved(tmp_path / "a")
    fewer = {**LLAMA, "num_hidden_layers": 1}
    with pytest.raises(
        FileError, match=r"layers\.1\..*is not a module of .*nearest are '.*' and '.*'"
    ):
        adapters.repair(tmp_path / "a", tmp_path / "new", base=fewer)
    wider = {**LLAMA, "intermediate_size": 40}
    with pytest.raises(FileError, match=r"is 16 x 24, but 16 x 40 in .*: not the same base"):
        adapters.repair(tmp_path / "a", tmp_path / "new", base=wider)
    change(tmp_path / "a", rank_pattern={}, r=8, lora_alpha=4)
    with pytest.raises(
        FileError,
        match=r"has rank \d, but the config says 8: its scale may be .* or .*",
    ):
        adapters.repair(tmp_path / "a", tmp_path / "new", base=LLAMA)
    assert not (tmp_path / "new").exists()


def test_emptied_tensors_are_named_with_their_cause(tmp_path):
    saved(tmp_path / "a")
    file = safetensors.open(tmp_path / "a" / WEIGHTS)
    tensors = {key: file.read(key) for key in file.tensors}
    key = next(iter(tensors))
    safetensors.save({**tensors, key: np.ones(0, np.float32)}, tmp_path / "a" / WEIGHTS)
    with pytest.raises(FileError, match=f"{re.escape(key)}' is empty: DeepSpeed ZeRO-3"):
        adapters.repair(tmp_path / "a", tmp_path / "new", base=LLAMA)


def test_the_command(tmp_path, capsys):
    deltas = saved(tmp_path / "a")
    change(tmp_path / "a", lambda key: f"_orig_mod.{key}")
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    words = [str(tmp_path / "a"), "--base", str(tmp_path / "config.json")]
    assert run(["check", *words]) == 3
    advice = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert advice == f"what would help: lora-np repair {words[0]} --base {words[2]} -o NEW"
    assert run([*advice.split()[4:-1], str(tmp_path / "new")]) == 0
    captured = capsys.readouterr()
    assert f"names rewritten: {len(deltas)} (torch.compile's _orig_mod.)" in captured.out
    assert run(["check", str(tmp_path / "new"), *words[1:], "--for", "peft"]) == 0
    assert run(["inspect", words[0]]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "names are read without their wrappers" in captured.err
