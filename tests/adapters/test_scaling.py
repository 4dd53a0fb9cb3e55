"""What resize, combine and extract write: which programs read it alike, and what --portable makes
of it.
"""

import json

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters.rules import remarks
from lora_np.files import FileError
from lora_np.hub import located, safetensors
from lora_np.language import located_adapter
from tests.rounding import assert_near

NOTE = "would run some modules at another scale; lora-np convert --to portable pads them"


def config(path):
    return json.loads((path / "adapter_config.json").read_text())


def strengths(path):
    """The updates as programs that know nothing of patterns take them: one alpha, over one rank."""
    said, file = config(path), safetensors.open(path / "adapter_model.safetensors")
    found = {}
    for key in file.tensors:
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            A, B = file.read(key), file.read(key.replace("lora_A", "lora_B"))
            assert len(A) == said["r"]
            found[name] = said["lora_alpha"] / said["r"] * B @ A
    return found


def write(folder, options, made):
    """The same goal, as it is and portable; what the second has is what the first has, at one
    rank.
    """
    results = [
        made(folder / str(portable), portable=portable, **options) for portable in (False, True)
    ]
    plain, padded = (adapters.load(folder / str(portable)) for portable in (False, True))
    ranks = {module.rank for module in plain.values()}
    assert config(folder / "False")["r"] == max(ranks)
    assert bool(misreading(plain)) == any(NOTE in note for note in results[0].notes)
    assert not misreading(padded)
    assert not any(NOTE in note for note in results[1].notes)
    assert {module.rank for module in padded.values()} == {config(folder / "True")["r"]}
    assert {module.scale for module in padded.values()} == {1.0}
    assert not config(folder / "True")["rank_pattern"]
    for name, update in strengths(folder / "True").items():
        assert_near(update, padded.delta(name), floor=16)
    return results, plain, padded


def misreading(adapter):
    return remarks(adapter, "peft", None)


GOALS = [{"rank": 2}, {"energy": 0.9}, {"tolerance": 0.2}, {"total_rank": 20}]


@pytest.mark.parametrize("options", GOALS, ids=str)
@pytest.mark.parametrize("rslora", [False, True])
def test_resize(tmp_path, make_adapter, options, rslora):
    source = (
        make_adapter("a", rank=4, alpha=12.0, use_rslora=rslora)
        if rslora
        else located_adapter("king-james")
    )
    options = {"total_rank": 7} if rslora and "total_rank" in options else options
    _, plain, padded = write(
        tmp_path, options, lambda out, **given: adapters.resize(source, out, **given)
    )
    assert bool(misreading(plain)) == (
        rslora or len({module.rank for module in plain.values()}) > 1
    )
    for name in plain:
        assert_near(padded.delta(name), plain.delta(name), floor=16)


def test_combine(tmp_path, make_adapter):
    shapes = {"model.layers.0.q_proj": (6, 4), "model.layers.0.v_proj": (3, 4)}
    one = make_adapter("a", rank=2, shapes=shapes)
    two = make_adapter("b", rank=1, seed=1, shapes=dict([*shapes.items()][:1]))
    made = lambda out, **given: adapters.combine([one, two], out, method="cat", **given)
    results, plain, _ = write(tmp_path, {}, made)
    assert {module.rank for module in plain.values()} == {2, 3}
    assert any("llama.cpp, tensorrt-llm would" in note for note in results[0].notes)


def test_extract(tmp_path):
    adapters.merge(located("austen"), located_adapter("king-james"), tmp_path / "tuned")
    made = lambda out, **given: adapters.extract(
        located("austen"), tmp_path / "tuned", out, **given
    )
    _, plain, padded = write(tmp_path, {"total_rank": 60}, made)
    assert len({module.rank for module in plain.values()}) > 1
    for name in plain:
        assert_near(padded.delta(name), plain.delta(name), floor=16)
    adapters.extract(located("austen"), tmp_path / "tuned", tmp_path / "a.gguf", rank=2)
    again = adapters.load(tmp_path / "a.gguf")  # with the order of rows of the base that was there
    adapters.extract(located("austen"), tmp_path / "tuned", tmp_path / "a", rank=2)
    assert adapters.diff(again, tmp_path / "a").same


def test_a_factor_that_overflows_is_named(tmp_path):
    tiny, huge = np.full((1, 5), 1e-30, "f4"), np.full((4, 1), 1e35, "f4")
    module = adapters.AdapterModule.of(A=tiny, B=huge, alpha=1e10)
    adapters.save(adapters.Adapter({"q": module}), tmp_path / "a")
    with pytest.raises(FileError, match=r"a: base_model.model.q.lora_B.weight: overflow"):
        adapters.convert(tmp_path / "a", tmp_path / "out", to="portable")


@pytest.mark.parametrize("size", [45_000, 60_000, 100_000, 250_000])
def test_bytes_count_what_is_written(tmp_path, size):
    source = located_adapter("king-james")
    result = adapters.resize(source, tmp_path / "a", budget=size, portable=True)
    file = tmp_path / "a" / "adapter_model.safetensors"
    assert result.bytes == file.stat().st_size <= size
    rank = config(tmp_path / "a")["r"]
    adapters.resize(source, tmp_path / "b", rank=rank + 1, portable=True)
    larger = (tmp_path / "b" / "adapter_model.safetensors").stat().st_size
    assert larger > size or rank == 8


def test_bytes_for_less_than_one_direction(tmp_path):
    with pytest.raises(ValueError, match=r"budget must be at least \d+, got 100"):
        adapters.resize(located_adapter("king-james"), tmp_path / "a", budget=100, portable=True)
    with pytest.raises(
        ValueError, match=r"budget is the size of PEFT's file, but a.gguf has another format"
    ):
        adapters.resize(located_adapter("king-james"), tmp_path / "a.gguf", budget=100_000)
    assert not list(tmp_path.iterdir())
